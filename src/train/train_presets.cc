// SPDX-License-Identifier: Apache-2.0
#include "train/train_presets.h"

namespace beamline::train {

TrainOptions PresetTrainOptions(const std::string& preset) {
  TrainOptions options;
  if (preset == "demo") {  // thousands of users, a minute or two on one core
    options.epochs = 16;
    options.batch_windows = 16;
    options.learning_rate = 4e-3;
    options.dropout = 0.2;
    options.event_dropout = 0.2;
    options.label_smoothing = 0.05;
    options.average_decay = 0.995;
    options.validate_every = 8;
    options.validation_users = 1000;
  } else if (preset == "small") {  // tens of thousands of users, ten minutes on one core
    options.epochs = 12;
    options.batch_windows = 128;
    options.targets_per_window = 50;
    options.learning_rate = 2e-3;
    options.dropout = 0.3;
    options.event_dropout = 0.2;
    options.label_smoothing = 0.1;
    options.first_target_decay = 0.8;
    options.target_decay = 0.8;
    options.average_decay = 0.998;
    options.validate_every = 4;
    options.validation_users = 25000;
  } else if (preset == "t5-d128") {  // LETTER's code: 2 GPUs of 256 histories, gradients of two passes, AdamW of torch
    options.epochs = 200;
    options.batch_windows = 1024;
    options.targets_per_window = 100000;
    options.min_history = 1;
    options.mean_over_codes = true;
    options.learning_rate = 5e-4;
    options.warmup_fraction = 0.01;
    options.weight_decay = 0.01;
    options.embedding_decay = 0.01;
    options.beta2 = 0.999;
    options.dropout = 0.1;
    options.label_smoothing = 0;
    options.validate_every = 5;
    options.validation_users = 5000;
    options.validation_beam = 20;
    options.exclude_seen = false;
    options.patience = 6;
  } else if (!preset.empty() && preset.back() == 'B') {  // the paper's sizes
    options.learning_rate = 2e-4;
    options.dropout = 0.1;
    options.targets_per_window = 4;
    options.batch_windows = 16;
  }
  return options;
}

}  // namespace beamline::train
