// SPDX-License-Identifier: Apache-2.0
//
// Whether a request gets in, as a pure function: refused at the door is cheap, dying in the queue is not. A request is
// refused when its deadline has passed (DEADLINE_EXCEEDED), when by the cost table it cannot finish in time behind the
// work ahead of it, or when the queue is full and nothing of lower priority waits in it (RESOURCE_EXHAUSTED, with a
// retry hint as in beamline/retry.h), and when the scheduler is stopping (UNAVAILABLE).
//
// An idle engine has nothing to lose: there a request is refused only where it could not finish at the least its work
// is known to take, and not at all where nothing was measured lately. Such a request is a probe: it keeps its place
// until its deadline, because somebody has to find out whether the table is right. Without that a few slow batches
// (another process took the CPU) would make an idle engine refuse everything until the table forgets them.
//
// Where it is switched off (`by_cost`), nobody is refused for the table's sake: all are probes.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "beamline/request.h"
#include "scheduler/batch_policy.h"
#include "scheduler/cost_table.h"

namespace beamline::scheduler {

// What the scheduler knows when a request knocks.
struct AdmissionView {
  absl::Time now;
  BatchLimits limits;
  int64_t queued = 0;
  int64_t capacity = 0;
  std::optional<Priority> lowest_queued;  // nullopt: nothing queued
  BatchSize encode_ahead;                 // waiting work that goes before the request, cached contexts left out
  BatchSize decode_ahead;
  absl::Duration until_worker_free;  // by the cost table; zero where one is idle
  bool idle = false;                 // nothing waits and nothing runs
  int workers = 1;
  double wait_margin = 0.2;  // WaitMargin::value
  bool stopping = false;
  bool by_cost = true;  // SchedulerOptions::admission
};

// What is added to an estimated wait, as a share of it. The estimate is a sum over batches that are yet to be formed,
// by rules that look closer than it can, and work that comes later may be more urgent: who is let in for the last
// millisecond of his deadline mostly dies in the queue. How much is enough is learnt: whoever expires makes the next
// ones wait outside, answers take it back, and in the balance one expires for a hundred answers, unless kMost is in
// the way: lower classes under overload would need more. One for each priority: who has to wait for the others' work
// does not speak for those who do not.
class WaitMargin {
 public:
  void Expired() { value_ = std::min(kMost, value_ + kStep); }
  void Answered() { value_ = std::max(kLeast, value_ - kStep / 100); }
  double value() const { return value_; }

 private:
  static constexpr double kLeast = 0.2, kMost = 2, kStep = 0.02;
  double value_ = kLeast;
};

struct AdmissionDecision {
  absl::Status status;        // OK: accepted
  bool evict_lowest = false;  // accepted in place of the last waiting request of the lowest priority
  bool probe = false;         // accepted whatever the cost table says
};

// How long until a worker would begin with the request: a free worker, then the work ahead in full batches over all
// workers. Zero where the table knows nothing.
absl::Duration EstimateWait(const AdmissionView& view, const CostTable& cost);

// How long until the request would have its answer: as above, its own work included (it shares the last batches, and
// takes as long as they do).
absl::Duration EstimateLatency(const QueuedJob& job, const AdmissionView& view, const CostTable& cost);

AdmissionDecision Admit(const QueuedJob& job, const AdmissionView& view, const CostTable& cost);

}  // namespace beamline::scheduler
