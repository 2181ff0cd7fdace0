// SPDX-License-Identifier: Apache-2.0
//
// Trains a model on a corpus: multi-position teacher forcing (examples.h), AdamW under warm-up and cosine, dropout,
// label smoothing, optional weight averaging, expert balancing, and validation by full ranking with beam search, which
// chooses the weights that are kept and ends the run early. The same model code as in serving, on the aten backend.
//
// On the CPU a run repeats bit for bit from its options on the same machine with the same thread count, and so does one
// that was interrupted and restored from a checkpoint: every random number is a function of the seed and the position.
// On a GPU it repeats but for the order of some sums. Not thread-safe. Weights are fp32.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "backend/context.h"
#include "base/progress.h"
#include "catalogue/snapshot.h"
#include "data/ranking_metrics.h"
#include "model/model.h"
#include "runtime/feature_builder.h"
#include "train/checkpoint.h"
#include "train/corpus.h"
#include "train/examples.h"
#include "train/item_ranker.h"
#include "train/learning_rate.h"
#include "train/optimizer.h"
#include "train/pending_steps.h"
#include "train/train_options.h"
#include "train/weight_average.h"

namespace beamline::train {

struct EpochRecord {
  int epoch = 0;                     // from 1
  int64_t step = 0;                  // of the optimizer, at its end
  double loss = 0;                   // mean over targets, smoothed as trained on
  std::vector<double> level_losses;  // mean -log p per level
  double learning_rate = 0;          // at its end
  double gradient_norm = 0;          // mean before clipping
  int64_t targets = 0;
  double seconds = 0;  // training only
  std::optional<data::RankingMetrics> validation;
  bool best = false;  // of the validations so far
};

struct TrainInputs {
  const Corpus* corpus = nullptr;
  const runtime::FeatureBuilder* features = nullptr;
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot;
  const model::Weights* initial = nullptr;  // copied; null: random ones of options.seed
  std::string initial_sha256;               // of the file they come from; what a run goes on from is to be the same
};

class Trainer {
 public:
  // What the inputs point to outlives the trainer. Errors: options, a causal encoder with the `age` feature, sizes of
  // catalogue and model that differ, fewer than one batch, no target with a SID.
  static absl::StatusOr<std::unique_ptr<Trainer>> Create(backend::Context ctx, const TrainInputs& inputs,
                                                         const TrainOptions& options);

  // Continues a saved run of the same model, options, data and catalogue. Errors name the first field that differs;
  // then the trainer must not be used any more.
  absl::Status Restore(const std::string& checkpoint);
  // As it stands: Run does so by itself.
  absl::Status Save(const std::string& checkpoint);

  // Trains to the end, saving to `checkpoint` (empty: never) after epochs, at most three times a minute, and when
  // interrupted, in which case it returns CANCELLED. `on_epoch` sees every finished epoch.
  absl::Status Run(const std::string& checkpoint, Progress* progress = nullptr,
                   const std::function<void(const EpochRecord&)>& on_epoch = {});
  // Ends Run with CANCELLED before this step, or before the first step or validation that would begin after `time`,
  // saving as an interruption would. StopAt is a time budget; StopBeforeStep is for tests alone, which interrupt a run
  // at every kind of step: no clock and no signal hits one.
  void StopBeforeStep(int64_t step) { stop_before_step_ = step; }
  void StopAt(absl::Time time) { stop_at_ = time; }

  // The weights to keep: the best by validation, else the last (averaged, if averaging is on).
  const model::Weights& result() const;
  const std::vector<EpochRecord>& curve() const { return curve_; }
  bool stopped_early() const { return stopped_early_; }
  int64_t steps_per_epoch() const { return steps_per_epoch_; }

  // One optimizer step on a batch; what Run repeats. Returns the loss.
  absl::StatusOr<double> TrainStep(const ExampleBatch& batch);
  const model::Model& model() const { return *model_; }

 private:
  // What may fail to be made.
  struct Prepared {
    ItemRanker ranker;
    model::Weights weights;
    std::unique_ptr<model::Model> model;
  };
  Trainer(backend::Context ctx, const TrainInputs& inputs, const TrainOptions& options, Prepared prepared);

  // Hands a step to the device; on a GPU nothing waits for it.
  void EnqueueStep(const ExampleBatch& batch);
  // Waits for the steps enqueued and adds their values to the epoch's; an error names the first that is not finite.
  absl::Status AccountForSteps();
  absl::Status BudgetSpent() const;
  absl::Status RunEpoch(Progress* progress);
  absl::Status FinishEpoch(Progress* progress);
  absl::StatusOr<data::RankingMetrics> ValidateWeights(Progress* progress);
  const model::Weights& current() const { return average_.has_value() ? average_->average() : weights_; }
  std::vector<CheckpointPart> Parts() const;
  nlohmann::json DescribeData() const;  // what a run must find again when it goes on
  absl::Status CheckRestored(const std::string& path) const;

  // Sums over the steps of the epoch accounted for: part of a checkpoint.
  struct Running {
    double loss = 0;
    std::vector<double> level_losses;
    double gradient_norm = 0;
    int64_t targets = 0;
    double seconds = 0;
  };

  backend::Context ctx_;
  const TrainInputs inputs_;
  const TrainOptions options_;
  const ExampleBuilder examples_;
  const ItemRanker ranker_;
  model::Weights weights_;
  std::unique_ptr<model::Model> model_;
  AdamW optimizer_;
  std::optional<WeightAverage> average_;
  std::vector<CorpusCase> validation_cases_;
  int64_t steps_per_epoch_ = 0;
  LearningRateSchedule schedule_;
  int64_t stop_before_step_ = -1;
  absl::Time stop_at_ = absl::InfiniteFuture();

  int epoch_ = 0;      // finished
  int64_t batch_ = 0;  // finished in the epoch under way
  int64_t step_ = 0;   // optimizer steps
  PendingSteps pending_;
  double last_loss_ = 0;  // of the steps accounted for
  Running running_;
  std::vector<EpochRecord> curve_;
  model::Weights best_;     // empty: none yet
  double best_score_ = -1;  // R@10 + N@10
  int worse_ = 0;           // validations since
  bool stopped_early_ = false;
};

nlohmann::json ToJson(const EpochRecord& record);

}  // namespace beamline::train
