// SPDX-License-Identifier: Apache-2.0
//
// The engine over runners of any source, free of torch: checks a request in the caller's thread and pins it to the
// model and catalogue that serve then, prepares it (history, eligibility, input; on its own threads what may wait),
// hands it to the scheduler as a job, and turns the job's hypotheses into items. Its repository swaps models beneath
// all that. README.md in this folder states concepts, ownership, threads and invariants; tests drive it with a fake
// runner and a fake clock. Thread-safe as beamline/engine.h says.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>

#include "base/clock.h"
#include "base/metrics.h"
#include "beamline/engine.h"
#include "engine/call.h"
#include "engine/model_dispatch.h"
#include "engine/model_loader.h"
#include "engine/preparation.h"
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
    std::shared_ptr<const Clock> clock;  // null: the process's
    int preparation_threads = 2;         // 0: inside Submit, stores, too
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
  std::optional<DeviceMemory> GetDeviceMemory() const override;
  std::optional<DevicePasses> GetDevicePasses() const override;
  bool Drain(absl::Time deadline) override;
  absl::Time Now() const override { return clock_->Now(); }

  // Only with `inline_execution`: see scheduler::Scheduler::Step.
  absl::Time Step() { return scheduler_->Step(); }
  // See repository::ModelRepository::Step.
  bool StepRepository() { return repository_->Step(); }
  scheduler::SchedulerStats scheduler_stats() const { return scheduler_->stats(); }

 private:
  explicit EngineCore(const Parts& parts);
  absl::Status StartRepository(RunnerSource source, bool inline_execution);
  void StartScheduler(bool inline_execution);
  void StartPreparation(int threads);
  // The scheduler's baseline is of the version that the newest request is pinned to.
  void UseCostsOf(const ServingModel& serving);
  // The version that new requests are pinned to.
  ServingHandle Serving() const;
  // On OK the call is in preparation.
  absl::Status Accept(const CallPtr& call, const RecommendRequest& request, Preparation::Place place);
  // RESOURCE_EXHAUSTED where the request would be refused even if it needed no encode: said before preparation, so that
  // saying no costs next to nothing.
  absl::Status RefuseHopeless(const RecommendRequest& request, int levels) const;
  bool Caches(const RecommendRequest& request) const;
  bool NeedsStore(const RecommendRequest& request) const;
  // On a thread where it would wait for a store or a rule to compile, or sort long lists.
  Preparation::Place PlaceOf(const RecommendRequest& request) const;
  // To the scheduler's queue, or to the call's end.
  void Prepare(const CallPtr& call);
  // The job of a request, pinned to `serving`; REQUIRES what Accept checked.
  absl::StatusOr<std::unique_ptr<runtime::RequestJob>> MakeJob(RecommendRequest& request, const ServingHandle& serving);
  // By the load it meets: see narrowing.h.
  void SetWidths(const RecommendRequest& request, runtime::RequestJob& job) const;
  absl::Status AddHistory(RecommendRequest& request) const;
  void Enqueue(const CallPtr& call, std::unique_ptr<runtime::RequestJob> job);
  absl::StatusOr<RecommendResult> Answer(const Call& call, const runtime::RequestJob& job) const;
  // Runs the callback, unless the call has ended before: then false. `refused`: its result is a refusal (README 5.1),
  // which only whoever refuses can know; codes do not tell a full queue from a store that is out of reach.
  bool End(const CallPtr& call, absl::StatusOr<RecommendResult> result, bool refused = false);

  const EngineOptions options_;
  const std::shared_ptr<const Clock> clock_;
  RequestRecorder recorder_;
  std::unique_ptr<repository::ModelRepository> repository_;
  Counter completed_, failed_, rejected_, narrowed_;
  std::mutex costs_mu_;
  std::atomic<uint64_t> costs_group_{0};  // written under costs_mu_: whose costs the scheduler has; groups begin at 1
  absl::Time warmed_up_;                  // constant after Create

  std::unique_ptr<ModelDispatch> dispatch_;
  std::unique_ptr<scheduler::Scheduler> scheduler_;
  std::unique_ptr<Preparation> preparation_;  // last: its threads use all of the above
};

}  // namespace beamline::engine
