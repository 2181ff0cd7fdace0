// SPDX-License-Identifier: Apache-2.0
#include "scheduler/batch_policy.h"

#include <algorithm>

namespace beamline::scheduler {
namespace {

using Action = BatchDecision::Action;

// The best batch of one queue and the time at which it closes (`now` or earlier: closed).
struct Candidate {
  std::vector<const QueuedJob*> jobs;  // most urgent first
  absl::Time closes = absl::InfiniteFuture();
};

bool Fits(const BatchSize& size, const QueuedJob& job, WorkKind kind, const BatchLimits& limits) {
  if (size.requests == 0) return true;  // the most urgent job always goes, even alone above a limit
  if (size.requests >= limits.max_requests) return false;
  return kind == WorkKind::kEncode ? size.context_tokens + job.context_tokens <= limits.max_context_tokens
                                   : size.rows + job.rows <= limits.max_rows;
}

// The last moment at which this batch can start and still meet the deadlines of all its jobs. What follows an encode
// batch is one decode batch of the same jobs.
absl::Time LatestStart(const Candidate& batch, const BatchSize& size, WorkKind kind, absl::Time now,
                       const CostTable& cost) {
  absl::Duration needed = cost.Estimate(WorkKind::kDecode, size, now);
  if (kind == WorkKind::kEncode) needed += cost.Estimate(WorkKind::kEncode, size, now);
  absl::Time earliest = absl::InfiniteFuture();
  for (const QueuedJob* job : batch.jobs) earliest = std::min(earliest, job->deadline);
  return earliest - needed;
}

Candidate FormBatch(absl::Span<const QueuedJob> queue, WorkKind kind, bool closing, absl::Time now,
                    const CostTable& cost, const BatchLimits& limits) {
  std::vector<const QueuedJob*> order;
  order.reserve(queue.size());
  for (const QueuedJob& job : queue) {
    if (!IsDead(job, kind == WorkKind::kDecode, now, cost)) order.push_back(&job);
  }
  std::sort(order.begin(), order.end(),
            [&](const QueuedJob* a, const QueuedJob* b) { return MoreUrgent(*a, *b, now, limits); });

  Candidate batch;
  BatchSize size;
  for (const QueuedJob* job : order) {
    if (!Fits(size, *job, kind, limits)) continue;  // a smaller one further down may still fit
    size.Add(job->rows, job->context_tokens);
    batch.jobs.push_back(job);
  }
  if (batch.jobs.empty()) return batch;
  const bool full =
      batch.jobs.size() < order.size() || size.requests >= limits.max_requests ||
      (kind == WorkKind::kEncode ? size.context_tokens >= limits.max_context_tokens : size.rows >= limits.max_rows);
  if (full || closing) {
    batch.closes = now;
    return batch;
  }
  batch.closes = LatestStart(batch, size, kind, now, cost);
  for (const QueuedJob* job : batch.jobs) {
    batch.closes = std::min(batch.closes, job->submitted + limits.max_queue_delay);
  }
  return batch;
}

}  // namespace

bool MoreUrgent(const QueuedJob& a, const QueuedJob& b, absl::Time now, const BatchLimits& limits) {
  const bool a_starves = now - a.submitted >= limits.starvation_limit;
  const bool b_starves = now - b.submitted >= limits.starvation_limit;
  if (a_starves != b_starves) return a_starves;
  if (a_starves) return a.id < b.id;
  if (a.priority != b.priority) return a.priority > b.priority;
  if (a.deadline != b.deadline) return a.deadline < b.deadline;
  return a.id < b.id;
}

bool IsDead(const QueuedJob& job, bool encoded, absl::Time now, const CostTable& cost) {
  if (job.cancelled || job.deadline <= now) return true;
  if (job.deadline == absl::InfiniteFuture()) return false;
  BatchSize alone;
  alone.Add(job.rows, job.context_tokens);
  absl::Duration needed = cost.Estimate(WorkKind::kDecode, alone, now);
  if (!encoded) needed += cost.Estimate(WorkKind::kEncode, alone, now);
  return now + needed > job.deadline;
}

BatchDecision DecideBatch(const QueueView& view, absl::Time now, const CostTable& cost, const BatchLimits& limits) {
  BatchDecision decision;
  const Candidate encode = FormBatch(view.encode, WorkKind::kEncode, view.closing, now, cost, limits);
  const Candidate decode = FormBatch(view.decode, WorkKind::kDecode, view.closing, now, cost, limits);
  const bool encode_closed = !encode.jobs.empty() && encode.closes <= now;
  const bool decode_closed = !decode.jobs.empty() && decode.closes <= now;
  const Candidate* chosen = nullptr;
  if (decode_closed && (!encode_closed || !MoreUrgent(*encode.jobs[0], *decode.jobs[0], now, limits))) {
    decision.action = Action::kDecode;
    chosen = &decode;
  } else if (encode_closed) {
    decision.action = Action::kEncode;
    chosen = &encode;
  }
  if (chosen == nullptr) {
    decision.wait_until = std::min(encode.closes, decode.closes);
    return decision;
  }
  for (const QueuedJob* job : chosen->jobs) decision.batch.push_back(job->id);
  return decision;
}

}  // namespace beamline::scheduler
