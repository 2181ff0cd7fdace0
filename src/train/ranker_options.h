// SPDX-License-Identifier: Apache-2.0
//
// How a ranker is trained on top of a model (ranker_trainer.h), as plain values, written into training.json. Validate
// names the option, the limit and the value. Pure functions.
#pragma once

#include <cstdint>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/config.h"

namespace beamline::train {

struct RankerOptions {
  uint64_t seed = 1;
  int epochs = 5;
  int batch_windows = 32;  // histories per step
  // Causal encoder: events of one stretch of history trained in one pass. Bidirectional: random events of one user per
  // epoch.
  int targets_per_window = 64;

  double learning_rate = 4e-3;
  double warmup_fraction = 0.05;  // of all steps; then half a cosine down to 0
  double weight_decay = 0.01;     // decoupled, on matrices; embedding_decay on the last code's vectors
  double embedding_decay = 0.01;
  double clip_norm = 1.0;  // 0: off
};

absl::Status Validate(const RankerOptions& options);

nlohmann::json ToJson(const RankerOptions& options);

// Heads from "long_view=1,like=2,click=0.2": a label, and what its probability counts for in an item's value. Errors
// name what is wrong; numbers and repeats are checked with the model's configuration.
absl::StatusOr<std::vector<model::RankerHead>> ParseHeads(absl::string_view text);

}  // namespace beamline::train
