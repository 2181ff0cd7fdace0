// SPDX-License-Identifier: Apache-2.0
//
// From files to files: what `beamline train-ranker` does. It reads the folder of a trained model and the data and
// tokenizer it was trained with, and writes another model folder (model_folder.h): the same model with a ranker, its
// other weights bit for bit, and in training.json a section `ranker` of options, curve and what the ranker reaches on
// held-out events. Nothing is written before all is trained and measured, and the weights are written last.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "model/config.h"
#include "train/data_source.h"
#include "train/ranker_evaluation.h"
#include "train/ranker_options.h"
#include "train/ranker_trainer.h"
#include "train/training_run.h"

namespace beamline::train {

struct RankerRun {
  DataSource source;
  std::string model;           // folder of `beamline train`
  std::string out;             // another one
  model::RankerConfig ranker;  // width and heads
  RankerOptions options;
  DeviceOptions device;
  bool retrain = false;  // the model has a ranker, which a new one replaces
  bool fresh = false;    // replace a model in `out`
};

// What a run says before its first step.
struct RankerSummary {
  BehaviourCounts counts;
  int64_t parameters = 0;  // of the ranker
  std::vector<std::string> warnings;
};

struct RankerObserver {
  std::function<void(const RankerSummary&)> on_start;
  std::function<void(const RankerEpoch&)> on_epoch;
};

// Errors name the folder, file or option and what to do: a model of family t5 or with a ranker already, a model in
// `out`, a label that no event has or all have.
absl::StatusOr<RankerReport> RunRankerTraining(const RankerRun& run, const RankerObserver& observer,
                                               Progress* progress = nullptr);

}  // namespace beamline::train
