// SPDX-License-Identifier: Apache-2.0
//
// The engine over runners of any source, free of torch: checks a request in the caller's thread and pins it to the
// model and catalogue that serve then, prepares it (history, input, eligibility) on its own threads, hands it to the
// scheduler as a job, and turns the job's hypotheses into items. Its repository swaps models beneath all that.
// README.md in this folder states concepts, ownership, threads and invariants; tests drive it with a fake runner and a
// fake clock. Thread-safe as beamline/engine.h says.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread_pool.h"
#include "beamline/engine.h"
#include "engine/model_dispatch.h"
#include "engine/model_loader.h"
#include "engine/request_recorder.h"
#include "engine/serving_model.h"
#include "repository/model_repository.h"
#include "runtime/request_job.h"
#include "scheduler/scheduler.h"

namespace beamline::engine {

class EngineCore final : public Engine {
 public:
  struct Parts {
    EngineOptions options;
    RunnerSource source;
    std::shared_ptr<const Clock> clock;  // null: a RealClock
    int preparation_threads = 2;         // 0: inside Submit
    bool inline_execution = false;       // no scheduler or repository threads: the owner calls Step, StepRepository
  };

  // Loads and warms up the first model. INVALID_ARGUMENT names the option; FAILED_PRECONDITION: model and catalogue do
  // not belong together; else why the bundle cannot be served.
  static absl::StatusOr<std::unique_ptr<EngineCore>> Create(Parts parts);
  ~EngineCore() override;

  Canceller Submit(RecommendRequest request, Callback done) override;
  std::shared_ptr<const Catalogue> catalogue() const override;
  void Reload(std::string bundle, ReloadCallback done) override;
  void Rollback(ReloadCallback done) override;
  EngineStatus GetStatus() const override;
  bool Drain(absl::Time deadline) override;

  // Only with `inline_execution`: see scheduler::Scheduler::Step.
  absl::Time Step() { return scheduler_->Step(); }
  // See repository::ModelRepository::Step.
  bool StepRepository() { return repository_->Step(); }
  scheduler::SchedulerStats scheduler_stats() const { return scheduler_->stats(); }

 private:
  struct Call;
  using CallPtr = std::shared_ptr<Call>;

  explicit EngineCore(const Parts& parts);
  absl::Status StartRepository(RunnerSource source, bool inline_execution);
  void StartScheduler(bool inline_execution);
  // The version that new requests are pinned to.
  ServingHandle Serving() const;
  absl::Status Accept(const RecommendRequest& request, const ServingModel& serving);
  void Prepare(const CallPtr& call);
  // The job of a request, pinned to `serving`; REQUIRES what Accept checked.
  absl::StatusOr<std::unique_ptr<runtime::RequestJob>> MakeJob(RecommendRequest& request, const ServingHandle& serving);
  absl::Status AddHistory(RecommendRequest& request) const;
  void Enqueue(const CallPtr& call, std::unique_ptr<runtime::RequestJob> job);
  RecommendResult Answer(const Call& call, const runtime::RequestJob& job) const;
  // Runs the callback; the call's only end.
  void End(const CallPtr& call, absl::StatusOr<RecommendResult> result);
  void Count(const absl::Status& status);

  const EngineOptions options_;
  const std::shared_ptr<const Clock> clock_;
  RequestRecorder recorder_;
  std::unique_ptr<repository::ModelRepository> repository_;
  Counter completed_, failed_, rejected_;

  mutable std::mutex mu_;
  std::condition_variable prepared_;
  int64_t preparing_ = 0;  // guarded by mu_: accepted, not yet with the scheduler
  bool stopping_ = false;  // guarded by mu_

  std::unique_ptr<ModelDispatch> dispatch_;
  std::unique_ptr<scheduler::Scheduler> scheduler_;
  std::unique_ptr<ThreadPool> preparation_;  // last: its threads use all of the above
};

}  // namespace beamline::engine
