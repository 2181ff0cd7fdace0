// SPDX-License-Identifier: Apache-2.0
//
// The part of Scheduler that runs without its lock: one batch through the executor, and the end of jobs.
#include <algorithm>
#include <memory>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "scheduler/scheduler.h"

namespace beamline::scheduler {
namespace {

// The executor's statuses, or INTERNAL for all if it broke its contract.
std::vector<absl::Status> OnePerJob(std::vector<absl::Status> statuses, size_t jobs) {
  if (statuses.size() == jobs) return statuses;
  return std::vector<absl::Status>(
      jobs, absl::InternalError(absl::StrCat("the executor returned ", statuses.size(), " statuses for ", jobs,
                                             " jobs: a fault in the executor, please report it")));
}

}  // namespace

absl::Status Scheduler::Gate(const Job& job, absl::Time now) const {
  const Job::Caller caller = job.caller.load(std::memory_order_relaxed);
  if (caller == Job::Caller::kCancelled) return absl::CancelledError("cancelled by the caller");
  if (caller == Job::Caller::kOutOfTime) {
    return absl::DeadlineExceededError("the caller's time ran out before the answer was ready");
  }
  if (job.deadline <= now) {
    return absl::DeadlineExceededError("the deadline passed before the answer was ready");
  }
  if (abandoned_.load(std::memory_order_relaxed)) {
    return absl::UnavailableError("the engine stopped before the answer was ready; ask another replica");
  }
  return absl::OkStatus();
}

void Scheduler::Judge(WorkKind kind, absl::Span<const absl::Status> executed) {
  const bool broken = std::all_of(executed.begin(), executed.end(), [](const absl::Status& status) {
    return !status.ok() && !absl::IsCancelled(status) && !absl::IsDeadlineExceeded(status) &&
           !absl::IsUnavailable(status);
  });
  if (broken) {
    ++stats_.broken_batches;
  } else if (kind == WorkKind::kDecode && absl::c_any_of(executed, [](const absl::Status& s) { return s.ok(); })) {
    stats_.broken_batches = 0;
  }
}

void Scheduler::Execute(Work work) {
  End(std::exchange(work.ended, {}));
  if (work.batch.empty()) return;
  const std::vector<absl::Status> statuses = work.kind == WorkKind::kEncode ? Encode(work) : Decode(work);
  std::vector<Ended> ended;
  bool others_wait = false;
  {
    std::lock_guard lock(mu_);
    Return(work, statuses, ended);
    others_wait = busy_.empty() && !(encode_.empty() && decode_.empty());
  }
  // They wait for nothing any more, and this worker is about to run callbacks.
  if (others_wait && !ended.empty()) work_changed_.notify_one();
  End(std::move(ended));
}

std::vector<absl::Status> Scheduler::Encode(Work& work) {
  std::vector<absl::Status> statuses(work.batch.size());
  std::vector<Job*> jobs;
  std::vector<size_t> slots;  // of `jobs` in the batch
  uint64_t hits = 0;
  const absl::Time start = clock_->Now();
  BatchSize size;
  for (size_t i = 0; i < work.batch.size(); ++i) {
    Job& job = *work.batch[i].job;
    if (statuses[i] = Gate(job, start); !statuses[i].ok()) continue;
    job.encode_started = job.encode_ended = start;
    if (executor_->TryAttachContext(job)) {
      ++hits;
      continue;
    }
    size.Add(job.beam_rows, job.context_tokens);
    jobs.push_back(&job);
    slots.push_back(i);
  }
  absl::Time end = start;
  std::vector<absl::Status> encoded;
  if (!jobs.empty()) {
    encoded = OnePerJob(executor_->Encode(jobs), jobs.size());
    end = clock_->Now();
    for (size_t j = 0; j < jobs.size(); ++j) {
      jobs[j]->encode_ended = end;
      jobs[j]->encode_requests = static_cast<int>(jobs.size());
      statuses[slots[j]] = encoded[j];
    }
  }
  std::lock_guard lock(mu_);
  stats_.context_hits += hits;
  stats_.context_misses += jobs.size();
  if (!jobs.empty()) {
    Judge(WorkKind::kEncode, encoded);
    ++stats_.encode_batches;
    stats_.encode_requests += jobs.size();
    if (absl::c_any_of(encoded, [](const absl::Status& s) { return s.ok(); })) {
      cost_.Observe(WorkKind::kEncode, size, end - start, end);
    } else {
      cost_.ObserveAtLeast(WorkKind::kEncode, size, end - start, end);
    }
  }
  return statuses;
}

std::vector<absl::Status> Scheduler::Decode(Work& work) {
  std::vector<absl::Status> statuses(work.batch.size());
  std::vector<Job*> jobs;
  std::vector<size_t> slots;
  const absl::Time start = clock_->Now();
  BatchSize size;
  for (size_t i = 0; i < work.batch.size(); ++i) {
    Job& job = *work.batch[i].job;
    if (statuses[i] = Gate(job, start); !statuses[i].ok()) continue;
    job.decode_started = start;
    size.Add(job.beam_rows, job.context_tokens);
    jobs.push_back(&job);
    slots.push_back(i);
  }
  if (jobs.empty()) return statuses;
  for (Job* job : jobs) {
    job->decode_requests = static_cast<int>(jobs.size());
    job->decode_rows = static_cast<int>(size.rows);
  }
  const auto gate = [this](Job& job) {
    const absl::Time now = clock_->Now();
    job.steps_ended.push_back(now);
    return Gate(job, now);
  };
  const std::vector<absl::Status> decoded = OnePerJob(executor_->Decode(jobs, gate), jobs.size());
  const absl::Time end = clock_->Now();
  bool finished = false;
  for (size_t j = 0; j < jobs.size(); ++j) {
    jobs[j]->decode_ended = end;
    finished |= decoded[j].ok();
    statuses[slots[j]] = decoded[j].ok() ? Gate(*jobs[j], end) : decoded[j];
  }
  std::lock_guard lock(mu_);
  Judge(WorkKind::kDecode, decoded);
  if (finished) stats_.last_decoded = end;
  stats_.unanswered_since = finished ? absl::InfiniteFuture() : std::min(stats_.unanswered_since, start);
  stats_.unanswered_until = finished ? absl::InfinitePast() : std::max(stats_.unanswered_until, end);
  ++stats_.decode_batches;
  stats_.decode_requests += jobs.size();
  stats_.decode_rows += size.rows;
  if (finished) {
    cost_.Observe(WorkKind::kDecode, size, end - start, end);
  } else {
    cost_.ObserveAtLeast(WorkKind::kDecode, size, end - start, end);
  }
  return statuses;
}

void Scheduler::Return(Work& work, absl::Span<const absl::Status> statuses, std::vector<Ended>& ended) {
  busy_.erase(work.busy);
  stats_.executing -= work.size.requests;
  stats_.executing_rows -= work.size.rows;
  const bool encoded = work.kind == WorkKind::kEncode;
  if (encoded) {
    encoding_.requests -= work.size.requests;
    encoding_.rows -= work.size.rows;
    encoding_.context_tokens -= work.size.context_tokens;
  }
  for (size_t i = 0; i < work.batch.size(); ++i) {
    Entry& entry = work.batch[i];
    if (encoded && statuses[i].ok()) {
      SweepBy(entry.job->deadline);
      const JobId id = entry.id;
      decode_.emplace(id, std::move(entry));
    } else {
      ended.push_back({std::move(entry), statuses[i]});
    }
  }
}

void Scheduler::End(std::vector<Ended> ended) {
  if (ended.empty()) return;
  {
    std::lock_guard lock(mu_);
    for (const Ended& end : ended) {
      live_.erase(end.entry.id);
      switch (end.status.code()) {
        case absl::StatusCode::kOk:
          ++stats_.completed;
          wait_margin_[static_cast<size_t>(end.entry.job->priority)].Answered();
          break;
        case absl::StatusCode::kCancelled:
          ++stats_.cancelled;
          break;
        case absl::StatusCode::kDeadlineExceeded:
          ++stats_.expired;
          wait_margin_[static_cast<size_t>(end.entry.job->priority)].Expired();
          if (end.entry.job->decode_started == absl::InfinitePast()) ++stats_.expired_waiting;
          break;
        case absl::StatusCode::kResourceExhausted:
          if (end.entry.job->refused) break;  // counted where it was pushed out
          [[fallthrough]];                    // the executor's
        default:
          ++stats_.failed;
          if (abandoned_.load(std::memory_order_relaxed)) ++abandoned_jobs_;
      }
    }
  }
  for (Ended& end : ended) {
    end.entry.job->done(std::move(end.status), *end.entry.job);
    end.entry.job.reset();
  }
  std::lock_guard lock(mu_);
  stats_.in_flight -= static_cast<int64_t>(ended.size());
  ended_changed_.notify_all();
}

}  // namespace beamline::scheduler
