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

bool IsOk(const absl::Status& status) { return status.ok(); }
bool AnyOk(absl::Span<const absl::Status> statuses) { return absl::c_any_of(statuses, IsOk); }

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
  } else if (kind == WorkKind::kDecode && AnyOk(executed)) {
    stats_.broken_batches = 0;
  }
}

void Scheduler::Execute(Work work) {
  End(std::exchange(work.ended, {}));
  if (work.batch.empty()) return;
  const std::vector<absl::Status> statuses = work.kind == WorkKind::kDecode ? Decode(work)
                                             : work.then_decode             ? EncodeAndDecode(work)
                                                                            : Encode(work);
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

// The jobs of a batch that take part in one of its stages.
struct Scheduler::Stage {
  absl::Time start, end;
  std::vector<Job*> jobs;
  std::vector<size_t> slots;  // of these in the batch
  BatchSize size;
  uint64_t attached = 0;  // of an encode the others, whose contexts were at hand

  void Add(Job& job, size_t slot) {
    size.Add(job.beam_rows, job.context_tokens);
    jobs.push_back(&job);
    slots.push_back(slot);
  }
};

void Scheduler::Learn(WorkKind kind, const Stage& stage, absl::Span<const absl::Status> executed) {
  const absl::Duration took = stage.end - stage.start;
  if (!AnyOk(executed)) return cost_.ObserveAtLeast(kind, stage.size, took, stage.end);
  cost_.Observe(kind, stage.size, took, stage.end);
  // An old version's last batches say nothing of the next one, and one of which jobs died on the way took less.
  if (stage.jobs[0]->batch_group == baseline_group_ && absl::c_all_of(executed, IsOk)) {
    cost_.BoundBaseline(kind, stage.size, took);
  }
}

Scheduler::Stage Scheduler::BeginEncode(Work& work, std::vector<absl::Status>& statuses) {
  Stage stage{.start = clock_->Now()};
  for (size_t i = 0; i < work.batch.size(); ++i) {
    Job& job = *work.batch[i].job;
    if (statuses[i] = Gate(job, stage.start); !statuses[i].ok()) continue;
    job.encode_started = job.encode_ended = stage.start;
    if (executor_->TryAttachContext(job)) {
      ++stage.attached;
    } else {
      stage.Add(job, i);
    }
  }
  return stage;
}

void Scheduler::EndEncode(const Stage& stage, absl::Span<const absl::Status> encoded) {
  for (Job* job : stage.jobs) {
    job->encode_ended = stage.end;
    job->encode_requests = static_cast<int>(stage.jobs.size());
  }
  std::lock_guard lock(mu_);
  stats_.context_hits += stage.attached;
  stats_.context_misses += stage.jobs.size();
  if (stage.jobs.empty()) return;
  ++stats_.encode_batches;
  stats_.encode_requests += stage.jobs.size();
  Learn(WorkKind::kEncode, stage, encoded);
}

void Scheduler::EndDecode(const Stage& stage, absl::Span<const absl::Status> decoded,
                          std::vector<absl::Status>& statuses) {
  for (size_t j = 0; j < stage.jobs.size(); ++j) {
    Job& job = *stage.jobs[j];
    job.decode_started = stage.start;
    job.decode_ended = stage.end;
    job.decode_requests = static_cast<int>(stage.jobs.size());
    job.decode_rows = static_cast<int>(stage.size.rows);
    statuses[stage.slots[j]] = decoded[j].ok() ? Gate(job, stage.end) : decoded[j];
  }
  const bool finished = AnyOk(decoded);
  std::lock_guard lock(mu_);
  Judge(WorkKind::kDecode, decoded);
  if (finished) stats_.last_decoded = stage.end;
  stats_.unanswered_since = finished ? absl::InfiniteFuture() : std::min(stats_.unanswered_since, stage.start);
  stats_.unanswered_until = finished ? absl::InfinitePast() : std::max(stats_.unanswered_until, stage.end);
  ++stats_.decode_batches;
  stats_.decode_requests += stage.jobs.size();
  stats_.decode_rows += stage.size.rows;
  Learn(WorkKind::kDecode, stage, decoded);
}

absl::Status Scheduler::EndStep(Job& job) const {
  const absl::Time now = clock_->Now();
  job.steps_ended.push_back(now);
  return Gate(job, now);
}

std::vector<absl::Status> Scheduler::Encode(Work& work) {
  std::vector<absl::Status> statuses(work.batch.size());
  Stage stage = BeginEncode(work, statuses);
  std::vector<absl::Status> encoded;
  if (!stage.jobs.empty()) {
    encoded = OnePerJob(executor_->Encode(stage.jobs), stage.jobs.size());
    stage.end = clock_->Now();
    for (size_t j = 0; j < encoded.size(); ++j) statuses[stage.slots[j]] = encoded[j];
    std::lock_guard lock(mu_);
    Judge(WorkKind::kEncode, encoded);
  }
  EndEncode(stage, encoded);
  return statuses;
}

std::vector<absl::Status> Scheduler::Decode(Work& work) {
  std::vector<absl::Status> statuses(work.batch.size());
  Stage stage{.start = clock_->Now()};
  for (size_t i = 0; i < work.batch.size(); ++i) {
    Job& job = *work.batch[i].job;
    if (statuses[i] = Gate(job, stage.start); !statuses[i].ok()) continue;
    job.decode_started = stage.start;
    stage.Add(job, i);
  }
  if (stage.jobs.empty()) return statuses;
  const std::vector<absl::Status> decoded =
      OnePerJob(executor_->Decode(stage.jobs, [this](Job& job) { return EndStep(job); }), stage.jobs.size());
  stage.end = clock_->Now();
  EndDecode(stage, decoded, statuses);
  return statuses;
}

std::vector<absl::Status> Scheduler::EncodeAndDecode(Work& work) {
  std::vector<absl::Status> statuses(work.batch.size());
  Stage encode = BeginEncode(work, statuses), decode;
  if (encode.jobs.empty()) {
    EndEncode(encode, {});
    return Decode(work);
  }
  for (size_t i = 0; i < work.batch.size(); ++i) {
    if (statuses[i].ok()) decode.Add(*work.batch[i].job, i);
  }
  BatchExecutor::Chained chained = executor_->EncodeAndDecode(decode.jobs, [this](Job& job) { return EndStep(job); });
  decode.end = clock_->Now();
  absl::Time between = decode.end - chained.decode;
  for (const Job* job : decode.jobs) {
    if (!job->at_once && !job->steps_ended.empty()) between = std::min(between, job->steps_ended[0]);
  }
  decode.start = encode.end = std::clamp(between, encode.start, decode.end);
  const std::vector<absl::Status> decoded = OnePerJob(std::move(chained.statuses), decode.jobs.size());
  EndEncode(encode, decoded);
  EndDecode(decode, decoded, statuses);
  return statuses;
}

void Scheduler::Return(Work& work, absl::Span<const absl::Status> statuses, std::vector<Ended>& ended) {
  busy_.erase(work.busy);
  stats_.executing -= work.size.requests;
  stats_.executing_rows -= work.size.rows;
  const bool returns = work.returns();
  if (returns) {
    encoding_.requests -= work.size.requests;
    encoding_.rows -= work.size.rows;
    encoding_.context_tokens -= work.size.context_tokens;
  }
  for (size_t i = 0; i < work.batch.size(); ++i) {
    Entry& entry = work.batch[i];
    if (returns && statuses[i].ok()) {
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
