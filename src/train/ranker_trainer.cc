// SPDX-License-Identifier: Apache-2.0
#include "train/ranker_trainer.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/digest.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "train/learning_rate.h"
#include "train/loss.h"
#include "train/optimizer.h"

namespace beamline::train {
namespace {

constexpr char kRankerPrefix[] = "ranker.";
constexpr uint64_t kRankerStream = 0x72616e6b;  // of random numbers: none repeats another's

model::Weights RankerWeightsOf(const model::Weights& weights) {
  model::Weights own;
  for (const auto& [name, tensor] : weights.tensors()) {
    if (absl::StartsWith(name, kRankerPrefix)) own.Set(name, tensor);
  }
  return own;
}

// A training run under way.
class RankerRunner {
 public:
  RankerRunner(backend::Context ctx, const RankerInputs& inputs, const RankerOptions& options)
      : ctx_(std::move(ctx)),
        model_(*inputs.model),
        options_(options),
        examples_(RankerExamples(inputs, options)),
        weights_(RankerWeightsOf(model_.weights())),
        optimizer_(model_.config(), weights_,
                   {.weight_decay = options.weight_decay,
                    .embedding_decay = options.embedding_decay,
                    .clip_norm = options.clip_norm}) {
    schedule_.peak = options.learning_rate;
    schedule_.total_steps = examples_.batches_per_epoch() * options.epochs;
    schedule_.warmup_steps = static_cast<int64_t>(options.warmup_fraction * static_cast<double>(schedule_.total_steps));
  }

  absl::StatusOr<RankerEpoch> Epoch(int epoch, Progress* progress) {
    const absl::Time start = absl::Now();
    const EpochPlan plan = examples_.Plan(epoch);
    StartProgress(progress, absl::StrFormat("epoch %d/%d", epoch + 1, options_.epochs),
                  static_cast<int64_t>(plan.size()), "batches");
    RankerEpoch record{.epoch = epoch + 1};
    double loss = 0;
    for (size_t i = 0; i < plan.size(); ++i) {
      BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
      const ExampleBatch batch =
          examples_.Build(plan[i], StableMix64(StableMix64(epoch, i), options_.seed ^ kRankerStream));
      if (batch.targets == 0) continue;
      BEAMLINE_ASSIGN_OR_RETURN(const double of_batch, Step(batch));
      loss += of_batch * static_cast<double>(batch.targets);
      record.events += batch.targets;
      UpdateProgress(progress, static_cast<int64_t>(i) + 1,
                     absl::StrFormat("loss %.4f", loss / static_cast<double>(record.events)));
    }
    FinishProgress(progress);
    record.loss = loss / static_cast<double>(std::max<int64_t>(1, record.events));
    record.learning_rate = schedule_.At(std::max<int64_t>(0, step_ - 1));
    record.seconds = absl::ToDoubleSeconds(absl::Now() - start);
    return record;
  }

 private:
  absl::StatusOr<double> Step(const ExampleBatch& batch) {
    const RankerRows rows = MakeRankerRows(ctx_, model_, batch);
    optimizer_.ZeroGradients();
    const at::Tensor loss = BehaviourLoss(RowLogits(ctx_, *model_.ranker(), rows), rows.labels);
    loss.backward();
    const double norm = optimizer_.Step(schedule_.At(step_++)).item<double>(), value = loss.item<double>();
    if (std::isfinite(norm) && std::isfinite(value)) return value;
    return absl::InternalError(absl::StrCat("step ", step_, ": the loss is ", value, " and the gradient's norm ", norm,
                                            "; lower the learning rate (", schedule_.peak, ")"));
  }

  backend::Context ctx_;
  const model::Model& model_;
  const RankerOptions options_;
  const ExampleBuilder examples_;
  const model::Weights weights_;
  AdamW optimizer_;
  LearningRateSchedule schedule_;
  int64_t step_ = 0;
};

}  // namespace

model::Weights WithNewRanker(backend::Context& ctx, const model::Weights& trunk, const NewRanker& ranker) {
  model::Weights weights = RankerWeightsOf(model::InitWeights(ctx, ranker.config, ranker.seed));
  std::vector<float> bias;
  for (const model::RankerHead& head : ranker.config.ranker.heads) {
    const double rate = ranker.counts.Rate(head.label);
    bias.push_back(static_cast<float>(std::log(rate / (1 - rate))));
  }
  weights.Set("ranker.head.bias", backend::UploadWeight(ctx, bias, {static_cast<int64_t>(bias.size())}));
  for (const auto& [name, tensor] : trunk.tensors()) {
    if (!absl::StartsWith(name, kRankerPrefix)) weights.Set(name, tensor);
  }
  return weights;
}

ExampleBuilder RankerExamples(const RankerInputs& inputs, const RankerOptions& options) {
  TrainOptions examples;
  examples.seed = options.seed;
  examples.epochs = options.epochs;
  examples.batch_windows = options.batch_windows;
  examples.targets_per_window = options.targets_per_window;
  return {*inputs.corpus, *inputs.features, *inputs.catalogue, examples};
}

absl::StatusOr<std::vector<RankerEpoch>> TrainRanker(backend::Context ctx, const RankerInputs& inputs,
                                                     const RankerOptions& options, const RankerWatch& watch) {
  BEAMLINE_RETURN_IF_ERROR(Validate(options));
  std::vector<RankerEpoch> curve;
  try {
    RankerRunner runner(std::move(ctx), inputs, options);
    for (int epoch = 0; epoch < options.epochs; ++epoch) {
      BEAMLINE_ASSIGN_OR_RETURN(const RankerEpoch record, runner.Epoch(epoch, watch.progress));
      curve.push_back(record);
      if (watch.on_epoch) watch.on_epoch(record);
    }
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("training the ranker: ", error.what()));
  }
  return curve;
}

}  // namespace beamline::train
