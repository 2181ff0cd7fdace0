// SPDX-License-Identifier: Apache-2.0
//
// One accepted request until its callback. Shared by the job, the preparation and the canceller, which may outlive the
// engine. Plain: EngineCore says what happens when.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "absl/time/time.h"
#include "base/clock.h"
#include "beamline/engine.h"
#include "beamline/request.h"
#include "engine/answer.h"
#include "engine/serving_model.h"
#include "scheduler/scheduler.h"

namespace beamline::engine {

class PreparationWake;

struct Call {
  RecommendRequest request;  // until the job is made, as `serving`
  ServingHandle serving;
  Engine::Callback done;
  AnswerLimits limits;
  absl::Time received, deadline;
  std::unique_ptr<RecommendRequest> sample;  // to be recorded when answered; null: not this one
  std::vector<Event> traced_history;         // where the request is traced
  std::shared_ptr<PreparationWake> wake;     // where a thread prepares it: to be told of a cancel

  std::shared_ptr<const Clock> clock;

  std::mutex mu;
  scheduler::Scheduler* scheduler = nullptr;  // guarded by mu, as all below; set while the scheduler holds the job
  scheduler::Scheduler::JobId job = 0;        // 0: the scheduler has not met it
  bool cancelled = false;
  absl::Time cancelled_at;  // where it is
  bool ended = false;
  std::shared_ptr<Company> company;  // of its request, until the scheduler has heard that it comes or does not

  void Cancel();
  bool Queued();  // with the scheduler
  // OK while the caller still wants an answer that may still come in time. A cancel may be a caller's end of time, too
  // (base/deadline.h).
  absl::Status StillWanted(absl::Time now);
};
using CallPtr = std::shared_ptr<Call>;

}  // namespace beamline::engine
