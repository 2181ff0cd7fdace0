// SPDX-License-Identifier: Apache-2.0
//
// How a model is trained, as a plain value: written into training.json and every checkpoint, whose JSON is compared on
// resume, so that a run continues under the options it began with. Validate names the field, the limit and the value.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace beamline::train {

struct TrainOptions {
  uint64_t seed = 1;
  int epochs = 20;
  int batch_windows = 128;  // histories per step
  // Causal encoder: positions of one history trained in one pass. Bidirectional: random targets of one user per epoch.
  int targets_per_window = 24;
  int min_history = 0;  // bidirectional encoder: a target with fewer events before it does not train

  double learning_rate = 1e-3;
  double warmup_fraction = 0.05;  // of all steps, at most max_warmup_steps
  int64_t max_warmup_steps = 1000;
  double final_rate_fraction = 0.0;
  double weight_decay = 0.01;  // decoupled, on matrices; embedding_decay on tables
  double embedding_decay = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.98;
  double epsilon = 1e-8;
  double clip_norm = 1.0;  // 0: off
  // The loss of a target: the sum over its codes, or their mean, as transformers has it (clip_norm and epsilon mean
  // another thing then).
  bool mean_over_codes = false;
  // On a GPU: products of fp32 matrices take their factors in TF32 (10 bits of mantissa), in validation too.
  bool tf32 = false;

  double dropout = 0.2;
  double label_smoothing = 0.05;
  double event_dropout = 0.0;  // probability that an event is left out of a training history
  // Causal encoder: probability that a target does not see the newest event before it; again for the one before that,
  // and so on. Teaches what comes soon, not only what comes next.
  double hide_newest = 0.0;
  // What is watched drifts, so the newest targets tell most of what comes next: a target trains in an epoch with
  // probability decay^n, n = how many newer targets the user has in the training part. The decay goes in a line from
  // first_target_decay in the first epoch to target_decay in the last. 1: all targets, always.
  double first_target_decay = 1.0;
  double target_decay = 1.0;
  double average_decay = 0.0;  // exponential moving average of the weights; 0: off. The average is what is kept
  double balance_rate = 1e-3;  // step of the experts' biases (MoE); 0: off

  // Validation: full ranking by beam search on a fixed subset, every `validate_every` epochs and after the last.
  int validate_every = 1;
  int validation_users = 2000;  // 0: none, the last epoch's weights are kept
  int validation_beam = 64;
  bool exclude_seen = true;  // of the validation's ranking
  int patience = 0;          // validations without a better R@10 + N@10 before training ends; 0: never
};

absl::Status Validate(const TrainOptions& options);

nlohmann::json ToJson(const TrainOptions& options);

}  // namespace beamline::train
