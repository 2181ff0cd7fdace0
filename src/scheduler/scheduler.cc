// SPDX-License-Identifier: Apache-2.0
#include "scheduler/scheduler.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "base/thread_role.h"
#include "base/wait_until.h"
#include "beamline/retry.h"

namespace beamline::scheduler {
namespace {

QueuedJob Describe(uint64_t id, const Job& job) {
  return {.id = id,
          .priority = job.priority,
          .deadline = job.deadline,
          .submitted = job.submitted,
          .rows = job.beam_rows,
          .context_tokens = job.context_tokens,
          .cancelled = job.caller.load(std::memory_order_relaxed) != Job::Caller::kWaits,
          .group = job.batch_group,
          .probe = job.probe,
          .awaits_company = job.company != nullptr && job.company->awaits_more(),
          .expects_context = job.expects_context};
}

}  // namespace

Scheduler::Scheduler(const SchedulerOptions& options, BatchExecutor* executor, const Clock* clock)
    : options_(options), executor_(executor), clock_(clock), cost_(options.cost_max_age) {
  if (options_.workers == 0) return;
  const int workers = std::max(1, std::min(options_.workers, executor_->max_concurrency()));
  threads_.reserve(workers + 1);
  try {
    for (int i = 0; i < workers; ++i) threads_.emplace_back([this] { WorkerLoop(); });
    threads_.emplace_back([this] { SweeperLoop(); });
  } catch (...) {  // those that run would end the process as they are destroyed
    Join();
    throw;
  }
}

Scheduler::~Scheduler() {
  Drain(absl::InfiniteFuture());
  Join();
}

void Scheduler::Join() {
  {
    std::lock_guard lock(mu_);
    joining_ = true;
  }
  work_changed_.notify_all();
  sweep_changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Scheduler::JobId Scheduler::Submit(std::unique_ptr<Job> job) {
  std::unique_lock lock(mu_);
  const absl::Time now = clock_->Now();
  const JobId id = ++last_id_;
  job->submitted = now;
  const bool complete = job->company != nullptr && job->company->Meet();
  const QueuedJob queued = Describe(id, *job);
  AdmissionDecision decision = Admit(queued, ViewForAdmission(queued, now), cost_);
  if (!decision.status.ok()) {
    ++stats_.rejected;
    lock.unlock();
    if (complete) work_changed_.notify_one();  // those before it need not wait for it
    job->refused = !absl::IsDeadlineExceeded(decision.status);
    job->done(std::move(decision.status), *job);
    return id;
  }
  if (decision.evict_lowest) {
    PushOutLowest();
    sweep_changed_.notify_one();
  }
  job->probe = decision.probe;
  ++stats_.accepted;
  ++stats_.in_flight;
  live_[id] = job.get();
  encode_.emplace(id, Entry{id, std::move(job)});
  SweepBy(queued.deadline);
  lock.unlock();
  work_changed_.notify_one();
  return id;
}

Scheduler::Forecast Scheduler::Ask(QueuedJob job) const {
  std::lock_guard lock(mu_);
  const absl::Time now = clock_->Now();
  job.id = last_id_ + 1;
  job.submitted = now;
  const AdmissionView view = ViewForAdmission(job, now);
  return {Admit(job, view, cost_).status, EstimateWait(view, cost_)};
}

void Scheduler::SetBaseline(absl::Span<const BatchCost> measured, uint64_t group) {
  std::lock_guard lock(mu_);
  cost_.SetBaseline(measured);
  baseline_group_ = group;
}

void Scheduler::Leave(Company& company) {
  {
    std::lock_guard lock(mu_);  // a worker that looked before is waiting, and is told
    if (!company.Meet()) return;
  }
  work_changed_.notify_one();
}

void Scheduler::Cancel(JobId id) {
  {
    std::lock_guard lock(mu_);
    const auto found = live_.find(id);
    if (found == live_.end()) return;
    Job& job = *found->second;
    if (job.caller.load(std::memory_order_relaxed) != Job::Caller::kWaits) return;
    const bool late = RanOutOfTime(job.submitted, job.deadline, clock_->Now());
    job.caller.store(late ? Job::Caller::kOutOfTime : Job::Caller::kCancelled, std::memory_order_relaxed);
  }
  sweep_changed_.notify_one();
}

absl::Time Scheduler::Step() {
  std::unique_lock lock(mu_);
  const absl::Time now = clock_->Now();
  Work work = TakeWork(now);
  const absl::Time again = std::min(work.wait_until, NextDeadline());
  lock.unlock();
  if (work.ended.empty() && work.batch.empty()) return again;
  Execute(std::move(work));
  return clock_->Now();
}

bool Scheduler::Drain(absl::Time deadline) {
  std::unique_lock lock(mu_);
  stopping_ = true;
  while (stats_.in_flight > 0) {
    if (clock_->Now() >= deadline) abandoned_.store(true, std::memory_order_relaxed);
    work_changed_.notify_all();
    sweep_changed_.notify_all();
    if (threads_.empty()) {
      lock.unlock();
      Step();
      lock.lock();
    } else {
      WaitUntil(ended_changed_, lock, *clock_,
                abandoned_.load(std::memory_order_relaxed) ? absl::InfiniteFuture() : deadline);
    }
  }
  return abandoned_jobs_ == 0;
}

SchedulerStats Scheduler::stats() const {
  std::lock_guard lock(mu_);
  SchedulerStats stats = stats_;
  stats.queued = static_cast<int64_t>(encode_.size() + decode_.size());
  if (!busy_.empty()) stats.next_end = *busy_.begin();
  return stats;
}

void Scheduler::WorkerLoop() {
  if (executor_->computes_on_host()) TakeRole(ThreadRole::kComputes);
  std::unique_lock lock(mu_);
  while (true) {
    Work work = TakeWork(clock_->Now());
    if (!work.ended.empty() || !work.batch.empty()) {
      // A worker that comes back from a batch looks for the next one itself: another is needed for what is left now.
      const bool more = !encode_.empty() || !decode_.empty();
      lock.unlock();
      if (more) work_changed_.notify_one();
      Execute(std::move(work));
      lock.lock();
      continue;
    }
    if (joining_) return;
    WaitUntil(work_changed_, lock, *clock_, work.wait_until);
  }
}

void Scheduler::SweeperLoop() {
  std::unique_lock lock(mu_);
  while (true) {
    std::vector<Ended> dead = TakeDead(clock_->Now());
    if (!dead.empty()) {
      lock.unlock();
      End(std::move(dead));
      lock.lock();
      continue;
    }
    if (joining_) return;
    // Only when it has come: a time that followed the jobs would cost a wake-up for each of them.
    if (sweep_at_ <= clock_->Now()) sweep_at_ = NextDeadline();
    WaitUntil(sweep_changed_, lock, *clock_, sweep_at_);
  }
}

void Scheduler::SweepBy(absl::Time deadline) {
  if (deadline >= sweep_at_) return;
  sweep_at_ = deadline;
  sweep_changed_.notify_one();
}

AdmissionView Scheduler::ViewForAdmission(const QueuedJob& job, absl::Time now) const {
  AdmissionView view{.now = now,
                     .limits = options_.limits,
                     .queued = static_cast<int64_t>(encode_.size() + decode_.size()),
                     .capacity = options_.queue_capacity,
                     .decode_ahead = encoding_,
                     .until_worker_free = absl::ZeroDuration(),
                     .workers = std::max(1, static_cast<int>(threads_.size()) - 1),
                     .wait_margin = wait_margin_[static_cast<size_t>(job.priority)].value(),
                     .stopping = stopping_,
                     .by_cost = options_.admission};
  const auto add = [&](const Queue& queue, bool needs_encode) {
    for (const auto& [id, entry] : queue) {
      const QueuedJob other = Describe(id, *entry.job);
      view.lowest_queued = std::min(view.lowest_queued.value_or(Priority::kCritical), other.priority);
      if (!MoreUrgent(other, job, now, options_.limits)) continue;
      if (needs_encode && !other.expects_context) view.encode_ahead.Add(other.rows, other.context_tokens);
      view.decode_ahead.Add(other.rows, other.context_tokens);
    }
  };
  add(encode_, true);
  add(decode_, false);
  if (static_cast<int>(busy_.size()) >= view.workers) {
    // An overdue batch is expected to take as long again as it is overdue: a stalled device soon refuses everything.
    view.until_worker_free = absl::AbsDuration(*busy_.begin() - now);
  }
  view.idle = view.queued == 0 && busy_.empty();
  return view;
}

void Scheduler::PushOutLowest() {
  // The least urgent of the lowest priority; one that still waits for encode before one whose encode would be lost.
  const absl::Time now = clock_->Now();
  Queue* from = nullptr;
  Queue::iterator victim;
  for (Queue* queue : {&encode_, &decode_}) {
    for (auto it = queue->begin(); it != queue->end(); ++it) {
      const Priority priority = it->second.job->priority;
      const bool better = from == nullptr || priority < victim->second.job->priority ||
                          (priority == victim->second.job->priority && from == queue &&
                           MoreUrgent(Describe(victim->first, *victim->second.job),
                                      Describe(it->first, *it->second.job), now, options_.limits));
      if (better) std::tie(from, victim) = std::pair(queue, it);
    }
  }
  absl::Status status = Refusal(kPushedOut, "the queue is full and a request of higher priority came; retry later",
                                options_.limits.max_queue_delay);
  victim->second.job->refused = true;
  pushed_out_.push_back({std::move(victim->second), std::move(status)});
  from->erase(victim);
  ++stats_.pushed_out;
}

std::vector<Scheduler::Ended> Scheduler::TakeDead(absl::Time now) {
  std::vector<Ended> dead = std::exchange(pushed_out_, {});
  const CostsAt costs(cost_, now);
  const auto take = [&](Queue& queue, bool encoded) {
    for (auto it = queue.begin(); it != queue.end();) {
      absl::Status status = Gate(*it->second.job, now);
      if (status.ok() && IsDead(Describe(it->first, *it->second.job), encoded, costs)) {
        const Job& job = *it->second.job;
        status = absl::DeadlineExceededError(
            absl::StrCat("the request waited too long to be answered before its deadline: ",
                         absl::FormatDuration(absl::Trunc(now - job.submitted, absl::Microseconds(1))), " of the ",
                         absl::FormatDuration(absl::Trunc(job.deadline - job.submitted, absl::Microseconds(1))),
                         " it had when it was queued"));
      }
      if (status.ok()) {
        ++it;
        continue;
      }
      dead.push_back({std::move(it->second), std::move(status)});
      it = queue.erase(it);
    }
  };
  take(encode_, false);
  take(decode_, true);
  return dead;
}

absl::Time Scheduler::NextDeadline() const {
  absl::Time next = absl::InfiniteFuture();
  for (const Queue* queue : {&encode_, &decode_}) {
    for (const auto& [id, entry] : *queue) next = std::min(next, entry.job->deadline);
  }
  return next;
}

Scheduler::Work Scheduler::TakeWork(absl::Time now) {
  Work work;
  work.ended = TakeDead(now);
  std::vector<QueuedJob> encode, decode;
  for (const auto& [id, entry] : encode_) encode.push_back(Describe(id, *entry.job));
  for (const auto& [id, entry] : decode_) decode.push_back(Describe(id, *entry.job));
  const QueueView view{.encode = encode, .decode = decode, .idle = busy_.empty(), .closing = stopping_};
  const BatchDecision decision = DecideBatch(view, now, cost_, options_.limits);
  work.wait_until = decision.wait_until;
  if (decision.action == BatchDecision::Action::kWait) return work;

  work.kind = decision.action == BatchDecision::Action::kEncode ? WorkKind::kEncode : WorkKind::kDecode;
  Queue& queue = work.kind == WorkKind::kEncode ? encode_ : decode_;
  BatchSize run;  // of the size, what is expected to cost anything
  for (JobId id : decision.batch) {
    work.batch.push_back(std::move(queue.extract(id).mapped()));
    const Job& job = *work.batch.back().job;
    work.size.Add(job.beam_rows, job.context_tokens);
    if (work.kind == WorkKind::kDecode || !job.expects_context) run.Add(job.beam_rows, job.context_tokens);
  }
  stats_.executing += work.size.requests;
  stats_.executing_rows += work.size.rows;
  work.then_decode = decision.then_decode && executor_->chains();
  if (work.returns()) {
    encoding_.requests += work.size.requests;
    encoding_.rows += work.size.rows;
    encoding_.context_tokens += work.size.context_tokens;
  }
  absl::Time end = run.requests == 0 ? now : now + cost_.Estimate(work.kind, run, now);
  if (work.then_decode) end += cost_.Estimate(WorkKind::kDecode, work.size, now);
  work.busy = busy_.insert(end);
  return work;
}

}  // namespace beamline::scheduler
