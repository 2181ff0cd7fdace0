// SPDX-License-Identifier: Apache-2.0
//
// Runs jobs in batches on a BatchExecutor: two bounded queues (waiting for encode, waiting for decode), worker threads
// that do what batch_policy decides, and one thread that ends waiting jobs whose deadline passes or whose caller
// cancels. A decode batch is formed once and stays whole through all its steps. The scheduler measures batches into its
// cost table and knows nothing of a job's payload.
//
// Every job whose Submit was called ends in exactly one call of its `done`: inside Submit when refused, else on a
// scheduler thread, never under a lock, so `done` may submit again. A job's stages are asked of the executor before its
// deadline or not at all; between decode steps StepGate tells the executor who has died since; an answer that comes
// after the deadline is DEADLINE_EXCEEDED.
//
// With `workers` = 0 there are no threads: the owner calls Step, which makes one decision at the clock's time. That and
// FakeClock make every test deterministic. With threads, the clock must move by itself (RealClock).
//
// Thread-safe. The executor and the clock belong to the caller and outlive the scheduler.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "scheduler/admission.h"
#include "scheduler/batch_policy.h"
#include "scheduler/cost_table.h"
#include "scheduler/executor.h"

namespace beamline::scheduler {

struct SchedulerOptions {
  int workers = 1;  // threads; the executor's max_concurrency caps them; 0: Step
  int64_t queue_capacity = 1024;
  bool admission = true;  // false: no estimate ends a job, its deadline alone does
  BatchLimits limits;
  absl::Duration cost_max_age = absl::Seconds(1);
};

// Counts since the start; `queued`, `executing`, `in_flight` and `next_end` are of now.
struct SchedulerStats {
  int64_t queued = 0;
  int64_t executing = 0;
  int64_t executing_rows = 0;  // beam rows of the batches being encoded or decoded
  int64_t in_flight = 0;       // accepted, `done` has not returned yet
  uint64_t accepted = 0;
  uint64_t rejected = 0;         // by Submit
  uint64_t pushed_out = 0;       // accepted, then made to leave a full queue by a higher priority
  uint64_t completed = 0;        // OK
  uint64_t cancelled = 0;        // but for those cancelled as their time ran out
  uint64_t expired = 0;          // deadline passed, or could no longer be met
  uint64_t expired_waiting = 0;  // of these, before their decode began
  uint64_t failed = 0;           // any other status
  uint64_t context_hits = 0;
  uint64_t context_misses = 0;
  uint64_t encode_batches = 0, encode_requests = 0;
  uint64_t decode_batches = 0, decode_requests = 0, decode_rows = 0;
  // In which every job failed, none for its caller's sake: encode or decode, since a decode batch last finished a job.
  uint64_t broken_batches = 0;
  absl::Time last_decoded = absl::InfinitePast();  // when a decode batch last finished a job
  // When the first decode batch since then began (InfiniteFuture: none has), and when the last one ended.
  absl::Time unanswered_since = absl::InfiniteFuture();
  absl::Time unanswered_until = absl::InfinitePast();
  // When the batch that should end first was expected to, by the cost table; InfiniteFuture: nothing executes.
  absl::Time next_end = absl::InfiniteFuture();
};

class Scheduler {
 public:
  using JobId = uint64_t;

  Scheduler(const SchedulerOptions& options, BatchExecutor* executor, const Clock* clock);
  // Drains without a deadline.
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Never blocks on work. The id is for Cancel; it is valid, if useless, also when the job was refused.
  JobId Submit(std::unique_ptr<Job> job);
  // What Submit would say now to such a job, of which `id`, `submitted` and `cancelled` do not matter; counts nothing.
  // Between the answer and a Submit others may come.
  struct Forecast {
    absl::Status status;  // OK: it would be accepted
    absl::Duration wait;  // until a worker would begin with it; zero where costs are unknown
  };
  Forecast Ask(QueuedJob job) const;

  // What batches cost by the warm-up of the model that serves from now on (cost_table.h), with jobs of `group`.
  void SetBaseline(absl::Span<const BatchCost> measured, uint64_t group = 0);

  // One of the company's jobs will not be submitted.
  void Leave(Company& company);

  // The job ends with CANCELLED soon, if it has not ended yet; with DEADLINE_EXCEEDED where hardly any of its time is
  // left. A no-op for ended and unknown ids.
  void Cancel(JobId id);

  // Only with `workers` = 0. Makes one decision and carries it out. Returns when to call again: the clock's time if
  // something was done, later if there is only waiting to do, InfiniteFuture when both queues are empty.
  absl::Time Step();

  // Refuses new jobs from now on and waits for the others until `deadline`; those then left fail with UNAVAILABLE. True
  // when none was. Returns when every `done` has returned; must not be called from one. With `workers` = 0 it steps.
  bool Drain(absl::Time deadline);

  // A copy; for status pages and tests.
  SchedulerStats stats() const;

 private:
  struct Entry {
    JobId id = 0;
    std::unique_ptr<Job> job;
  };
  struct Ended {
    Entry entry;
    absl::Status status;
  };
  using Queue = std::map<JobId, Entry>;  // in order of submission; the policy orders by urgency

  // What one decision leaves to do without the lock.
  struct Work {
    std::vector<Ended> ended;
    WorkKind kind = WorkKind::kDecode;
    bool then_decode = false;  // as in BatchDecision
    std::vector<Entry> batch;
    bool returns() const { return kind == WorkKind::kEncode && !then_decode; }  // to wait for its decode
    BatchSize size;
    std::multiset<absl::Time>::iterator busy;  // of `batch`
    absl::Time wait_until = absl::InfiniteFuture();
  };

  void WorkerLoop();
  void SweeperLoop();
  void Join();  // the threads

  // With mu_ held.
  AdmissionView ViewForAdmission(const QueuedJob& job, absl::Time now) const;
  void PushOutLowest();
  Work TakeWork(absl::Time now);
  std::vector<Ended> TakeDead(absl::Time now);
  absl::Time NextDeadline() const;
  // The sweeper looks at the queues at `deadline` or before.
  void SweepBy(absl::Time deadline);
  // The job's worker is done with it: it waits for decode, or `ended` takes it.
  void Return(Work& work, absl::Span<const absl::Status> statuses, std::vector<Ended>& ended);

  // Without mu_.
  void Execute(Work work);
  std::vector<absl::Status> Encode(Work& work);
  std::vector<absl::Status> Decode(Work& work);
  std::vector<absl::Status> EncodeAndDecode(Work& work);
  struct Stage;
  // Attaches contexts; jobs that must not go on get a status.
  Stage BeginEncode(Work& work, std::vector<absl::Status>& statuses);
  // Note times, count, and learn the cost.
  void EndEncode(const Stage& stage, absl::Span<const absl::Status> encoded);
  void EndDecode(const Stage& stage, absl::Span<const absl::Status> decoded, std::vector<absl::Status>& statuses);
  absl::Status EndStep(Job& job) const;  // a StepGate
  // What the batch took: at least that, where no job came through; with mu_ held.
  void Learn(WorkKind kind, const Stage& stage, absl::Span<const absl::Status> executed);
  // Counts a batch as broken or not; with mu_ held.
  void Judge(WorkKind kind, absl::Span<const absl::Status> executed);
  // Why the job must not go on at `now`; OK: it may.
  absl::Status Gate(const Job& job, absl::Time now) const;
  void End(std::vector<Ended> ended);

  const SchedulerOptions options_;
  BatchExecutor* const executor_;
  const Clock* const clock_;

  mutable std::mutex mu_;
  std::condition_variable work_changed_;   // workers wait here
  std::condition_variable sweep_changed_;  // the sweeper
  std::condition_variable ended_changed_;  // Drain
  // Guarded by mu_ down to the threads.
  Queue encode_, decode_;
  std::vector<Ended> pushed_out_;
  absl::flat_hash_map<JobId, Job*> live_;  // accepted, `done` not begun
  CostTable cost_;
  uint64_t baseline_group_ = 0;            // of cost_
  std::array<WaitMargin, 3> wait_margin_;  // by priority
  SchedulerStats stats_;
  BatchSize encoding_;                            // being encoded: it will come back for decode
  std::multiset<absl::Time> busy_;                // when each executing batch should end
  absl::Time sweep_at_ = absl::InfiniteFuture();  // not after the deadline of anything in the queues
  JobId last_id_ = 0;
  int64_t abandoned_jobs_ = 0;
  bool stopping_ = false;  // refuse
  bool joining_ = false;   // threads return
  // Release/acquire is not needed: whoever sees it late only does a little more work.
  std::atomic<bool> abandoned_{false};  // the drain deadline passed: end everything
  std::vector<std::thread> threads_;
};

}  // namespace beamline::scheduler
