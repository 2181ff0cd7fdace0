// SPDX-License-Identifier: Apache-2.0
#include "scheduler/admission.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "beamline/retry.h"

namespace beamline::scheduler {
namespace {

// Time of `work` cut into as few equal batches as the limits allow, run by the workers side by side.
absl::Duration InBatches(WorkKind kind, const BatchSize& work, const AdmissionView& view, const CostTable& cost) {
  const BatchLimits& limits = view.limits;
  if (work.requests == 0) return absl::ZeroDuration();
  const auto parts = [](int64_t amount, int64_t limit) { return (amount - 1) / std::max<int64_t>(limit, 1) + 1; };
  const int64_t by_tokens = kind == WorkKind::kEncode ? parts(work.context_tokens, limits.max_context_tokens) : 1;
  const int64_t batches =
      std::max({parts(work.requests, limits.max_requests), parts(work.rows, limits.max_rows), by_tokens});
  const BatchSize one{.requests = parts(work.requests, batches),
                      .rows = parts(work.rows, batches),
                      .context_tokens = parts(work.context_tokens, batches)};
  return parts(batches, view.workers) * cost.Estimate(kind, one, view.now);
}

bool WorthAProbe(const QueuedJob& job, absl::Time now, const CostTable& cost) {
  BatchSize alone;
  alone.Add(job.rows, job.context_tokens);
  absl::Duration least = cost.Least(WorkKind::kDecode, alone, now);
  if (!job.expects_context) least += cost.Least(WorkKind::kEncode, alone, now);
  return cost.Stale(now) || now + least <= job.deadline;
}

absl::Status Refuse(absl::string_view reason, absl::string_view message, absl::Duration retry_after) {
  retry_after = std::max(retry_after, absl::Milliseconds(1));
  return Refusal(
      reason,
      absl::StrCat(message, "; retry after ", absl::ToInt64Milliseconds(absl::Ceil(retry_after, absl::Milliseconds(1))),
                   " ms or send less"),
      retry_after);
}

// "12.5ms", without the nanoseconds nobody reads.
std::string Readable(absl::Duration duration) {
  return absl::FormatDuration(absl::Floor(duration, absl::Microseconds(100)));
}

}  // namespace

absl::Duration EstimateWait(const AdmissionView& view, const CostTable& cost) {
  return view.until_worker_free + InBatches(WorkKind::kEncode, view.encode_ahead, view, cost) +
         InBatches(WorkKind::kDecode, view.decode_ahead, view, cost);
}

absl::Duration EstimateLatency(const QueuedJob& job, const AdmissionView& view, const CostTable& cost) {
  BatchSize encode = view.encode_ahead, decode = view.decode_ahead;
  if (!job.expects_context) encode.Add(job.rows, job.context_tokens);
  decode.Add(job.rows, job.context_tokens);
  return view.until_worker_free + InBatches(WorkKind::kEncode, encode, view, cost) +
         InBatches(WorkKind::kDecode, decode, view, cost);
}

AdmissionDecision Admit(const QueuedJob& job, const AdmissionView& view, const CostTable& cost) {
  const absl::Time now = view.now;
  if (view.stopping) return {absl::UnavailableError("the engine is stopping; ask another replica")};
  if (job.deadline <= now) {
    return {absl::DeadlineExceededError(
        absl::StrCat("the deadline had passed ", Readable(now - job.deadline), " before the request was queued"))};
  }
  if (job.rows > view.limits.max_rows) {
    return {absl::InvalidArgumentError(absl::StrCat("the request needs ", job.rows,
                                                    " beam rows per decode step; a batch holds at most ",
                                                    view.limits.max_rows, ": ask for narrower beams"))};
  }
  const absl::Duration latency = EstimateLatency(job, view, cost) + view.wait_margin * EstimateWait(view, cost);
  if (view.by_cost && job.deadline != absl::InfiniteFuture() && now + latency > job.deadline) {
    if (view.idle && view.capacity > 0 && WorthAProbe(job, now, cost)) return {.probe = true};
    return {Refuse(kCannotFinish,
                   absl::StrCat("the answer would take about ", Readable(latency), ", and the deadline is in ",
                                Readable(job.deadline - now)),
                   now + latency - job.deadline)};
  }
  if (view.queued < view.capacity) return {.probe = !view.by_cost};
  if (view.lowest_queued.has_value() && *view.lowest_queued < job.priority) {
    return {.evict_lowest = true, .probe = !view.by_cost};
  }
  return {Refuse(kQueueFull,
                 absl::StrCat("the queue is full: ", view.queued, " requests wait, its capacity is ", view.capacity),
                 latency)};
}

}  // namespace beamline::scheduler
