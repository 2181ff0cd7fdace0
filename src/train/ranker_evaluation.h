// SPDX-License-Identifier: Apache-2.0
//
// How good a ranker is, on what neither it nor its model was fitted on: every event from a user's validation target on
// (corpus.h) whose item has a SID, after the events before it. Up to the end of the log, and not only to the test
// target; as each such part begins with a target, the labels that make one are more frequent in it than in the training
// part, the more so the rarer they are. Beside it the constant that each head's rate in the training part is. What its
// order does to lists: `beamline evaluate --by-value`. Pure but for the time it takes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "backend/context.h"
#include "base/progress.h"
#include "train/ranker_trainer.h"

namespace beamline::train {

struct HeadScores {
  uint32_t label = 0;
  double weight = 0;          // in an item's value
  double training_rate = 0;   // of the label, in the training part
  double rate = 0;            // in what is held out
  std::optional<double> auc;  // none where all held-out events have the label, or none has
  double log_loss = 0;        // nats
  double constant_loss = 0;   // of training_rate
};

struct RankerReport {
  int64_t events = 0;  // held out
  std::vector<HeadScores> heads;
};

// FAILED_PRECONDITION where nothing is held out: for whoever is about to train.
absl::Status CheckHeldOut(const RankerInputs& inputs, const RankerOptions& options);

struct TrainedRanker {
  const RankerInputs& inputs;
  const BehaviourCounts& counts;  // of what it was trained with
};

// Errors: CheckHeldOut's; a prediction that is not a number is INTERNAL; CANCELLED after Ctrl-C.
absl::StatusOr<RankerReport> EvaluateRanker(backend::Context ctx, const TrainedRanker& ranker,
                                            const RankerOptions& options, Progress* progress = nullptr);

std::string RankerTable(const RankerReport& report);
nlohmann::json RankerReportToJson(const RankerReport& report);

}  // namespace beamline::train
