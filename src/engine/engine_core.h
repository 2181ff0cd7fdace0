// SPDX-License-Identifier: Apache-2.0
//
// The engine over any runner, free of torch: checks a request in the caller's thread, prepares it (history, input,
// eligibility) on its own threads, hands it to the scheduler as a job pinned to one catalogue snapshot, and turns the
// job's hypotheses into items. README.md in this folder states concepts, ownership, threads and invariants; tests drive
// it with a fake runner and a fake clock. Thread-safe as beamline/engine.h says.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/snapshot_ptr.h"
#include "base/thread_pool.h"
#include "beamline/engine.h"
#include "catalogue/rule_cache.h"
#include "runtime/request_job.h"
#include "runtime/runner.h"
#include "scheduler/scheduler.h"

namespace beamline::engine {

class EngineCore final : public Engine {
 public:
  struct Parts {
    EngineOptions options;
    std::unique_ptr<runtime::Runner> runner;
    std::shared_ptr<const Clock> clock;  // null: a RealClock
    int preparation_threads = 2;         // 0: inside Submit
    bool inline_execution = false;       // no scheduler threads: the owner calls Step
  };

  // INVALID_ARGUMENT names the option; FAILED_PRECONDITION: model and catalogue do not belong together.
  static absl::StatusOr<std::unique_ptr<EngineCore>> Create(Parts parts);
  ~EngineCore() override;

  Canceller Submit(RecommendRequest request, Callback done) override;
  std::shared_ptr<const Catalogue> catalogue() const override;
  EngineStatus GetStatus() const override;
  bool Drain(absl::Time deadline) override;

  // Only with `inline_execution`: see scheduler::Scheduler::Step.
  absl::Time Step() { return scheduler_->Step(); }
  scheduler::SchedulerStats scheduler_stats() const { return scheduler_->stats(); }

 private:
  // What requests are pinned to: a snapshot and the rules compiled for it, swapped together.
  struct CatalogueVersion {
    std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
    std::shared_ptr<catalogue::RuleCache> rules;
  };
  struct Call;
  using CallPtr = std::shared_ptr<Call>;

  explicit EngineCore(Parts parts);
  absl::Status Accept(const RecommendRequest& request);
  void Prepare(const CallPtr& call);
  // The job of a request; REQUIRES what Accept checked.
  absl::StatusOr<std::unique_ptr<runtime::RequestJob>> MakeJob(RecommendRequest& request) const;
  absl::Status AddHistory(RecommendRequest& request) const;
  void Enqueue(const CallPtr& call, std::unique_ptr<runtime::RequestJob> job);
  RecommendResult Answer(const Call& call, const runtime::RequestJob& job) const;
  // Runs the callback; the call's only end.
  void End(const CallPtr& call, absl::StatusOr<RecommendResult> result);
  void Count(const absl::Status& status);

  const EngineOptions options_;
  const std::unique_ptr<runtime::Runner> runner_;
  const std::shared_ptr<const Clock> clock_;
  SnapshotPtr<CatalogueVersion> current_;
  Counter completed_, failed_, rejected_;

  mutable std::mutex mu_;
  std::condition_variable prepared_;
  int64_t preparing_ = 0;  // guarded by mu_: accepted, not yet with the scheduler
  bool stopping_ = false;  // guarded by mu_

  std::unique_ptr<scheduler::Scheduler> scheduler_;
  std::unique_ptr<ThreadPool> preparation_;  // last: its threads use all of the above
};

}  // namespace beamline::engine
