// SPDX-License-Identifier: Apache-2.0
//
// What the scheduler asks of whoever runs batches: encode some jobs, decode some jobs. runtime/model_runner implements
// it over a model; tests implement it over nothing. The scheduler knows costs and times of a job, never its payload.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "beamline/company.h"
#include "beamline/request.h"
#include "beamline/types.h"

namespace beamline::scheduler {

// One request on its way. The caller derives from it to add its payload and hands it over with Scheduler::Submit; the
// scheduler owns it until `done` has run. Fields are set before Submit and constant after it, but for the last group,
// which only the scheduler's threads write, each stage happening-before the next.
struct Job {
  virtual ~Job() = default;

  Priority priority = Priority::kDefault;
  absl::Time deadline = absl::InfiniteFuture();
  int context_tokens = 0;  // cost of encode
  int beam_rows = 1;       // cost of one decode step: the widest level
  // Its context is likely to be at hand (TryAttachContext) when its turn comes: encode is expected to cost nothing.
  bool expects_context = false;
  // Jobs of different groups never share a batch: here, those of different versions of the model.
  uint64_t batch_group = 0;
  std::shared_ptr<Company> company;  // of jobs that come at once, and may share its batch; null: none
  // Set by Scheduler::Cancel, read by every stage. Relaxed is enough: it carries no data with it.
  enum class Caller : uint8_t { kWaits, kCancelled, kOutOfTime };
  std::atomic<Caller> caller{Caller::kWaits};
  // Runs once, when the job has ended for whatever reason.
  absl::AnyInvocable<void(absl::Status, Job&)> done;

  bool refused = false;  // the scheduler would not take it, or made it leave the queue for a more urgent one
  bool probe = false;    // taken whatever the cost table says (admission.h)
  absl::Time submitted = absl::InfinitePast();
  // InfinitePast: not reached. Encode's are equal when the context was cached.
  absl::Time encode_started = absl::InfinitePast(), encode_ended = absl::InfinitePast();
  absl::Time decode_started = absl::InfinitePast(), decode_ended = absl::InfinitePast();
  absl::InlinedVector<absl::Time, kMaxLevels> steps_ended;  // of decode, but for the last, which ends with it
  bool at_once = false;  // the executor says: a device ran all steps in one go, and steps_ended tells of none
  int encode_requests = 0, decode_requests = 0;  // of the batches it was in; encode's 0 when cached
  int decode_rows = 0;
};

// Called by an executor between decode steps with a job of the batch, whose finished step it notes (of a job that runs
// `at_once`, before the first): a status other than OK (CANCELLED, DEADLINE_EXCEEDED) means the job is dead and its
// rows need no further work.
using StepGate = absl::FunctionRef<absl::Status(Job&)>;

// Thread-compatible: at most `max_concurrency` of the calls below run at once, each from its own thread. They
// must not throw and must not call back into the scheduler.
class BatchExecutor {
 public:
  virtual ~BatchExecutor() = default;
  virtual int max_concurrency() const { return 1; }
  // Whether a batch's time is that of the host's processors. Where it is a device's, the thread that feeds it must not
  // give way to others.
  virtual bool computes_on_host() const { return true; }

  // True when the job's context is at hand and is now attached to it: it goes straight to decode. Must be cheap. Asked
  // once per job, just before it would be encoded.
  virtual bool TryAttachContext(Job& job) = 0;
  // One status per job, in order. A job that failed does not reach Decode.
  virtual std::vector<absl::Status> Encode(absl::Span<Job* const> jobs) = 0;
  // Runs all steps for the whole batch; asks `gate` for each live job between steps; stops early when none is left.
  virtual std::vector<absl::Status> Decode(absl::Span<Job* const> jobs, StepGate gate) = 0;

  // Whether a device can be given a decode while it still encodes the same jobs: then it need not wait for the host in
  // between. The scheduler does so where nothing else could come in between.
  virtual bool chains() const { return false; }
  struct Chained {
    std::vector<absl::Status> statuses;  // one per job, in order
    absl::Duration decode;               // of the whole time, the last part, which was the decode's
  };
  // Encode of the jobs that have no context yet, and then Decode of all.
  virtual Chained EncodeAndDecode(absl::Span<Job* const> jobs, StepGate gate) {
    static_cast<void>(gate);
    return {std::vector<absl::Status>(jobs.size(), absl::UnimplementedError("the executor chains nothing")), {}};
  }
};

}  // namespace beamline::scheduler
