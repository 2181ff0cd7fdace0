// SPDX-License-Identifier: Apache-2.0
//
// What a free worker does next, as a pure function of the queues, the time, the cost table and the limits. It reads no
// clock and changes nothing, so its behaviour over hours of traffic is tested in milliseconds.
//
// Order: priority first, earliest deadline inside it, then submission; whoever waited `starvation_limit` comes before
// all that, longest wait first. A batch takes jobs in this order while they fit and while, by the cost table, the
// growing batch still ends before the deadlines of those in it (not that of a probe which would be late even alone: it
// has nothing to lose, and others have). Under overload that rule would shrink batches to save the tightest jobs and
// lose all the others, so jobs that cannot afford a full batch are passed over, for those of them that can, where jobs
// of the head's priority alone overflow one, and where behind the head's more of these would be late than are passed
// over: goodput under overload is what full batches give.
//
// An encode batch holds no more beam rows than a decode batch: the same jobs decode together, right after. What was
// encoded for two decode batches would keep its first half waiting for the second, and who is let in could not be told
// how long that takes.
//
// All searches of a batch are computed as wide as its widest, and the limits count them so, contexts as long as the
// longest. One beside which more than twice the rows asked for are computed joins only where the cost table says that
// both take no longer together than one after the other: sixty narrow searches do not become wide ones because a wide
// one is the most urgent. And it comes after all that fit without.
//
// A batch holds jobs of one group, its head's. Where jobs of several groups wait, nobody waits for company: that is the
// moment after a swap of models, and the old version should be rid of soon.
//
// A batch closes when nothing executes: while something does, company gathers by itself, and waiting beside an unused
// device only makes answers late. Else, for a worker that would share the device with another, and where jobs to encode
// await others that were submitted with them: when it is full, when one of its jobs has waited half of what its
// deadline leaves it beside the work (the other half is for what timers and estimates are off by: who waits until the
// last moment has missed it), or when one has waited `max_queue_delay` since its submission (counted once over both
// queues: a request waits for company only before its first batch). Of two closed batches the one with the more urgent
// head runs; on a tie decode, which frees its contexts.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "beamline/request.h"
#include "scheduler/cost_table.h"

namespace beamline::scheduler {

struct BatchLimits {
  int64_t max_rows = 2048;             // beam rows per decode step of one batch, of encode's in what follows
  int64_t max_context_tokens = 65536;  // of one encode batch; a longer request is encoded alone
  int64_t max_requests = 64;
  absl::Duration max_queue_delay = absl::Milliseconds(2);
  absl::Duration starvation_limit = absl::Seconds(10);
};

// One waiting job, as the policy sees it.
struct QueuedJob {
  uint64_t id = 0;  // in order of submission
  Priority priority = Priority::kDefault;
  absl::Time deadline = absl::InfiniteFuture();
  absl::Time submitted = absl::InfinitePast();
  int64_t rows = 1;
  int64_t context_tokens = 0;
  bool cancelled = false;
  uint64_t group = 0;
  bool probe = false;            // admission.h: lives until its deadline, whatever the cost table says
  bool awaits_company = false;   // others that were submitted with it are not here yet
  bool expects_context = false;  // as in executor.h
};

// Both in any order. Dead jobs (IsDead) are for the caller to end first; they are not batched.
struct QueueView {
  absl::Span<const QueuedJob> encode;
  absl::Span<const QueuedJob> decode;
  bool idle = false;     // nothing executes
  bool closing = false;  // no further job will come
};

// True when `a` goes before `b`.
bool MoreUrgent(const QueuedJob& a, const QueuedJob& b, absl::Time now, const BatchLimits& limits);

// True when the job must not run: cancelled, its deadline reached, or (by the cost table) not reachable any more even
// if the job ran alone now.
bool IsDead(const QueuedJob& job, bool encoded, const CostsAt& costs);

struct BatchDecision {
  enum class Action : uint8_t { kWait, kEncode, kDecode };
  Action action = Action::kWait;
  std::vector<uint64_t> batch;  // ids to run, most urgent first; empty when waiting
  // Of kEncode: nothing else waits or runs, so what comes next is the decode of the same jobs, whoever arrives
  // meanwhile (their encode would only make these wait). It need not be asked for.
  bool then_decode = false;
  absl::Time wait_until = absl::InfiniteFuture();  // when waiting: ask again then, or when a queue changes
};

BatchDecision DecideBatch(const QueueView& view, absl::Time now, const CostTable& cost, const BatchLimits& limits);

}  // namespace beamline::scheduler
