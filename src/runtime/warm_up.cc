// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "base/interrupt.h"
#include "beamline/status.h"
#include "runtime/model_runner.h"
#include "runtime/synthetic_history.h"

namespace beamline::runtime {
namespace {

constexpr int kWarmUpWidth = 32;

RecommendRequest Synthetic(std::vector<Event> history, int levels) {
  RecommendRequest request;
  request.user_id = "warm-up";
  request.history = std::move(history);
  request.beam_widths.assign(levels, kWarmUpWidth);
  return request;
}

}  // namespace

absl::Status ModelRunner::TryBatch(absl::Span<const RecommendRequest> requests, ScoreRule score_rule) {
  std::vector<RequestJob> jobs(requests.size());
  std::vector<scheduler::Job*> batch;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const RecommendRequest& request = requests[i];
    jobs[i].input =
        BuildInput({.user_id = request.user_id, .user_attributes = request.user_attributes, .history = request.history},
                   *parts_.catalogue);
    jobs[i].beam_widths = request.beam_widths;
    jobs[i].score_rule = score_rule;
    jobs[i].trial = true;
    jobs[i].snapshot = parts_.catalogue;
    jobs[i].SetCosts();
    batch.push_back(&jobs[i]);
  }
  for (const absl::Status& status : Encode(batch)) BEAMLINE_RETURN_IF_ERROR(status);
  for (const absl::Status& status : Decode(batch, [](const scheduler::Job&) { return absl::OkStatus(); })) {
    BEAMLINE_RETURN_IF_ERROR(status);
  }
  return absl::OkStatus();
}

// Empty and full histories, alone and together: every shape class allocates and initialises once. Then what users have
// asked for lately, alone and together.
absl::Status ModelRunner::WarmUp(absl::Span<const RecommendRequest> recorded, ScoreRule score_rule) {
  const int window = std::max(info_.window_lengths[0], info_.window_lengths[1]);
  const RecommendRequest empty = Synthetic({}, info_.levels());
  const RecommendRequest full = Synthetic(SyntheticHistory(*parts_.catalogue, window), info_.levels());
  const RecommendRequest one = Synthetic(SyntheticHistory(*parts_.catalogue, 1), info_.levels());
  std::vector<std::vector<RecommendRequest>> batches = {{empty}, {full}, {full, one}};
  for (const RecommendRequest& request : recorded) batches.push_back({request});
  if (!recorded.empty()) batches.emplace_back(recorded.begin(), recorded.end());
  const int runs = runs_until_warm();
  for (const std::vector<RecommendRequest>& batch : batches) {
    for (int run = 0; run < runs; ++run) {
      BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
      BEAMLINE_RETURN_IF_ERROR(TryBatch(batch, score_rule));
    }
  }
  if (parts_.group != nullptr) BEAMLINE_RETURN_IF_ERROR(parts_.group->ShareTuning());
  tuning_.Save();
  return absl::OkStatus();
}

}  // namespace beamline::runtime
