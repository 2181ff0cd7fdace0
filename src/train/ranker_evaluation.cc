// SPDX-License-Identifier: Apache-2.0
#include "train/ranker_evaluation.h"

#include <cmath>
#include <exception>

#include <ATen/core/grad_mode.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "data/labels.h"
#include "train/binary_metrics.h"

namespace beamline::train {
namespace {

// Of every held-out event, by head.
struct Predictions {
  std::vector<std::vector<float>> logits;
  std::vector<std::vector<uint8_t>> labels;
};

absl::StatusOr<Predictions> Predict(backend::Context& ctx, const RankerInputs& inputs, const RankerOptions& options,
                                    Progress* progress) {
  const at::NoGradGuard no_gradients;
  const ExampleBuilder examples = RankerExamples(inputs, options);
  const EpochPlan plan = examples.HeldOutPlan();
  const size_t heads = inputs.model->config().ranker.heads.size();
  Predictions predictions{std::vector<std::vector<float>>(heads), std::vector<std::vector<uint8_t>>(heads)};
  StartProgress(progress, "held out", static_cast<int64_t>(plan.size()), "batches");
  for (size_t i = 0; i < plan.size(); ++i) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    const ExampleBatch batch = examples.Build(plan[i], options.seed);
    if (batch.targets == 0) continue;
    const RankerRows rows = MakeRankerRows(ctx, *inputs.model, batch);
    const std::vector<float> logits = backend::DownloadFloats(ctx, RowLogits(ctx, *inputs.model->ranker(), rows));
    const std::vector<float> labels = backend::DownloadFloats(ctx, rows.labels);
    for (size_t j = 0; j < logits.size(); ++j) {
      if (!std::isfinite(logits[j])) return absl::InternalError("the ranker's prediction of an event is not a number");
      predictions.logits[j % heads].push_back(logits[j]);
      predictions.labels[j % heads].push_back(labels[j] != 0 ? 1 : 0);
    }
    UpdateProgress(progress, static_cast<int64_t>(i) + 1);
  }
  FinishProgress(progress);
  return predictions;
}

HeadScores Score(const model::RankerHead& head, double training_rate, absl::Span<const float> logits,
                 absl::Span<const uint8_t> labels) {
  HeadScores scores{.label = head.label, .weight = head.weight, .training_rate = training_rate};
  for (const uint8_t has : labels) scores.rate += has;
  scores.rate /= static_cast<double>(labels.size());
  scores.auc = AreaUnderCurve(logits, labels);
  scores.log_loss = LogLoss(logits, labels);
  scores.constant_loss = ConstantLogLoss(training_rate, labels);
  return scores;
}

absl::Status NothingHeldOut() {
  return absl::FailedPreconditionError(
      "nothing to evaluate the ranker on: no user has the three targets that the split needs");
}

}  // namespace

absl::Status CheckHeldOut(const RankerInputs& inputs, const RankerOptions& options) {
  if (!RankerExamples(inputs, options).HeldOutPlan().empty()) return absl::OkStatus();
  return NothingHeldOut();
}

absl::StatusOr<RankerReport> EvaluateRanker(backend::Context ctx, const TrainedRanker& ranker,
                                            const RankerOptions& options, Progress* progress) {
  try {
    BEAMLINE_ASSIGN_OR_RETURN(const Predictions predictions, Predict(ctx, ranker.inputs, options, progress));
    RankerReport report{.events = static_cast<int64_t>(predictions.labels.front().size())};
    if (report.events == 0) return NothingHeldOut();
    const std::vector<model::RankerHead>& heads = ranker.inputs.model->config().ranker.heads;
    for (size_t h = 0; h < heads.size(); ++h) {
      report.heads.push_back(
          Score(heads[h], ranker.counts.Rate(heads[h].label), predictions.logits[h], predictions.labels[h]));
    }
    return report;
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("evaluating the ranker: ", error.what()));
  }
}

std::string RankerTable(const RankerReport& report) {
  std::string table = absl::StrFormat("%d events held out\n%-14s %8s %8s %8s %8s %10s %10s\n", report.events, "head",
                                      "weight", "trained", "rate", "AUC", "log loss", "constant");
  for (const HeadScores& head : report.heads) {
    absl::StrAppendFormat(&table, "%-14s %8g %8.4f %8.4f %8s %10.4f %10.4f\n", data::FormatLabels(head.label),
                          head.weight, head.training_rate, head.rate,
                          head.auc.has_value() ? absl::StrFormat("%.4f", *head.auc) : "-", head.log_loss,
                          head.constant_loss);
  }
  for (const HeadScores& head : report.heads) {
    if (head.log_loss < head.constant_loss) continue;
    absl::StrAppend(
        &table, "warning: ", data::FormatLabels(head.label),
        " is predicted no better than by its rate in training; leave its head out, or train it otherwise\n");
  }
  return table;
}

nlohmann::json RankerReportToJson(const RankerReport& report) {
  nlohmann::json heads = nlohmann::json::array();
  for (const HeadScores& head : report.heads) {
    heads.push_back({{"label", data::FormatLabels(head.label)},
                     {"weight", head.weight},
                     {"training_rate", head.training_rate},
                     {"rate", head.rate},
                     {"auc", head.auc.has_value() ? nlohmann::json(*head.auc) : nlohmann::json(nullptr)},
                     {"log_loss", head.log_loss},
                     {"constant_log_loss", head.constant_loss}});
  }
  return {{"events", report.events}, {"heads", heads}};
}

}  // namespace beamline::train
