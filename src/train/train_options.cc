// SPDX-License-Identifier: Apache-2.0
#include "train/train_options.h"

#include <limits>

#include "train/option_fields.h"

namespace beamline::train {
namespace {

// The one table of fields: name, member, smallest and largest value.
constexpr auto kTrainFields = [](auto& o, auto&& visit) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  visit("seed", o.seed, 0, kInfinity);
  visit("epochs", o.epochs, 1, 100000);
  visit("batch_windows", o.batch_windows, 1, 65536);
  visit("targets_per_window", o.targets_per_window, 1, 100000);
  visit("min_history", o.min_history, 0, 100000);
  visit("learning_rate", o.learning_rate, 0, 10);
  visit("warmup_fraction", o.warmup_fraction, 0, 1);
  visit("max_warmup_steps", o.max_warmup_steps, 0, 1e9);
  visit("final_rate_fraction", o.final_rate_fraction, 0, 1);
  visit("weight_decay", o.weight_decay, 0, 10);
  visit("embedding_decay", o.embedding_decay, 0, 10);
  visit("beta1", o.beta1, 0, 0.99999);
  visit("beta2", o.beta2, 0, 0.999999);
  visit("epsilon", o.epsilon, 1e-15, 1);
  visit("clip_norm", o.clip_norm, 0, 1e6);
  visit("mean_over_codes", o.mean_over_codes, 0, 1);
  visit("tf32", o.tf32, 0, 1);
  visit("dropout", o.dropout, 0, 0.95);
  visit("label_smoothing", o.label_smoothing, 0, 0.9);
  visit("event_dropout", o.event_dropout, 0, 0.95);
  visit("hide_newest", o.hide_newest, 0, 0.95);
  visit("first_target_decay", o.first_target_decay, 0, 1);
  visit("target_decay", o.target_decay, 0, 1);
  visit("average_decay", o.average_decay, 0, 0.999999);
  visit("balance_rate", o.balance_rate, 0, 1);
  visit("validate_every", o.validate_every, 1, 100000);
  visit("validation_users", o.validation_users, 0, 1e9);
  visit("validation_beam", o.validation_beam, 10, 65536);
  visit("exclude_seen", o.exclude_seen, 0, 1);
  visit("patience", o.patience, 0, 100000);
};

}  // namespace

absl::Status Validate(const TrainOptions& options) { return ValidateFields(options, kTrainFields, "training"); }

OptionLimits LimitsOf(const TrainOptions& options, const void* field) {
  return LimitsOfField(options, kTrainFields, field);
}

nlohmann::json ToJson(const TrainOptions& options) { return FieldsToJson(options, kTrainFields); }

}  // namespace beamline::train
