// SPDX-License-Identifier: Apache-2.0
//
// From files to files: what `beamline train` and `beamline evaluate` do. Training reads a data folder and a tokenizer
// folder and writes a model folder (model_folder.h); everything is written atomically, the weights last. A run that was
// interrupted leaves its checkpoint, and the same command goes on from it. Errors name the file and what to do.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/progress.h"
#include "train/corpus.h"
#include "train/data_source.h"
#include "train/evaluation.h"
#include "train/precision_gate.h"
#include "train/train_options.h"
#include "train/trainer.h"

namespace beamline::train {

struct DeviceOptions {
  std::string device = "cpu";
  int threads = 0;               // 0: one per core
  std::string backend = "aten";  // of evaluation: aten, cpu, cuda or auto; training is aten's
};

struct TrainingRun {
  DataSource source;
  std::string out;
  std::string preset = "small";  // of the model; ignored where `config` is set
  std::string config;            // model configuration file
  // Folder of a model to start from, such as `beamline import hf --model-out` or an earlier run leaves: its
  // configuration and vocabulary instead of the preset's, and its weights instead of random ones.
  std::string from;
  CorpusOptions corpus;
  TrainOptions options;
  DeviceOptions device;
  bool fresh = false;  // forget an earlier run's checkpoint and model
  // Then the run ends as an interrupted one does: CANCELLED, and the same run goes on from its checkpoint. A
  // validation that has begun is finished. 0: no limit.
  double max_minutes = 0;
};

// What a run says before its first step.
struct RunSummary {
  int64_t users = 0;
  int64_t events = 0;
  int64_t targets = 0;
  int64_t training_targets = 0;
  int64_t targets_without_sid = 0;
  int64_t items = 0;
  int64_t sids = 0;
  int64_t parameters = 0;
  int64_t steps_per_epoch = 0;
  std::vector<std::string> warnings;
  int resumed_epoch = -1;  // finished epochs of the checkpoint; -1: a new run
};

struct RunObserver {
  std::function<void(const RunSummary&)> on_start;
  std::function<void(const EpochRecord&)> on_epoch;
};

absl::Status RunTraining(const TrainingRun& run, const RunObserver& observer, Progress* progress = nullptr);

struct EvaluationRun {
  DataSource source;
  std::string
      model;  // folder written by RunTraining, whose training.json says which events are targets, or by an import
  GivenTargets targets;  // of a model without training.json
  EvaluationOptions options;
  DeviceOptions device;
};

absl::StatusOr<EvaluationReport> RunEvaluation(const EvaluationRun& run, Progress* progress = nullptr);

struct PrecisionGateOptions {
  std::string dtype;
  // The cases of both splits, whatever the evaluation's: twice as many requests. A user's two count as two.
  bool both_splits = false;
};

// The quality gate of a dtype (runtime/gate_report.h) on the cases of the evaluation, seen items removed: the model is
// loaded and run in fp32, in bf16 and in that, one after the other. ABORTED: its weights were replaced meanwhile.
absl::StatusOr<runtime::PrecisionGateReport> RunPrecisionGate(const EvaluationRun& run,
                                                              const PrecisionGateOptions& gate,
                                                              Progress* progress = nullptr);

}  // namespace beamline::train
