// SPDX-License-Identifier: Apache-2.0
//
// A trainer's state to and from its checkpoint.
#include <limits>
#include <string>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "beamline/status.h"
#include "model/config.h"
#include "train/trainer.h"

namespace beamline::train {
namespace {

using nlohmann::json;

constexpr char kVocabulary[] = "vocabulary", kInitial[] = "weights to begin with (--from)";

// A value of the given type, or an error that names field and source.
template <typename T>
absl::Status Read(const json& object, const char* field, const std::string& source, T& value) {
  const auto found = object.find(field);
  if (found == object.end()) return absl::InvalidArgumentError(absl::StrCat(source, ": '", field, "' is missing"));
  try {
    value = found->get<T>();
  } catch (const json::exception&) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": '", field, "' has the wrong type: ", found->dump()));
  }
  return absl::OkStatus();
}

json ToJson(const data::RankingMetrics& metrics) {
  return {{"recall_5", metrics.recall_5},
          {"ndcg_5", metrics.ndcg_5},
          {"recall_10", metrics.recall_10},
          {"ndcg_10", metrics.ndcg_10}};
}

absl::Status CheckSame(absl::string_view what, const json& saved, const json& ours, const std::string& source) {
  for (const auto& [name, value] : ours.items()) {
    const auto found = saved.find(name);
    const std::string other = found == saved.end() ? "absent" : found->dump();
    if (found != saved.end() && *found == value) continue;
    return absl::FailedPreconditionError(absl::StrCat(source, ": ", what, " ", name, " is ", other, ", this run has ",
                                                      value.dump(),
                                                      "; resume with the same command, or train into another folder"));
  }
  return absl::OkStatus();
}

}  // namespace

json ToJson(const EpochRecord& record) {
  json object = {{"epoch", record.epoch},
                 {"step", record.step},
                 {"loss", record.loss},
                 {"level_losses", record.level_losses},
                 {"learning_rate", record.learning_rate},
                 {"gradient_norm", record.gradient_norm},
                 {"targets", record.targets},
                 {"seconds", record.seconds},
                 {"best", record.best}};
  if (record.validation.has_value()) object["validation"] = ToJson(*record.validation);
  return object;
}

absl::StatusOr<EpochRecord> EpochRecordFromJson(const json& object, const std::string& source) {
  EpochRecord record;
  BEAMLINE_RETURN_IF_ERROR(Read(object, "epoch", source, record.epoch));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "step", source, record.step));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "loss", source, record.loss));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "level_losses", source, record.level_losses));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "learning_rate", source, record.learning_rate));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "gradient_norm", source, record.gradient_norm));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "targets", source, record.targets));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "seconds", source, record.seconds));
  BEAMLINE_RETURN_IF_ERROR(Read(object, "best", source, record.best));
  if (const auto found = object.find("validation"); found != object.end()) {
    data::RankingMetrics metrics;
    BEAMLINE_RETURN_IF_ERROR(Read(*found, "recall_5", source, metrics.recall_5));
    BEAMLINE_RETURN_IF_ERROR(Read(*found, "ndcg_5", source, metrics.ndcg_5));
    BEAMLINE_RETURN_IF_ERROR(Read(*found, "recall_10", source, metrics.recall_10));
    BEAMLINE_RETURN_IF_ERROR(Read(*found, "ndcg_10", source, metrics.ndcg_10));
    record.validation = metrics;
  }
  return record;
}

std::vector<CheckpointPart> Trainer::Parts() const {
  model::Weights first, second;
  for (const AdamW::Moment& moment : optimizer_.moments()) {
    first.Set(moment.name, moment.first);
    second.Set(moment.name, moment.second);
  }
  std::vector<CheckpointPart> parts = {{.prefix = "weights", .tensors = weights_},
                                       {.prefix = "first", .tensors = first, .buffers = false},
                                       {.prefix = "second", .tensors = second, .buffers = false}};
  if (average_.has_value()) parts.push_back({.prefix = "average", .tensors = average_->average()});
  if (!best_.tensors().empty()) parts.push_back({.prefix = "best", .tensors = best_, .optional = true});
  return parts;
}

json Trainer::DescribeData() const {
  const data::Dataset& dataset = inputs_.corpus->dataset();
  return {{"steps_per_epoch", steps_per_epoch_},      {"targets", inputs_.corpus->target_items().items.size()},
          {"catalogue", inputs_.snapshot->version()}, {"events", dataset.EventsFingerprint()},
          {"users", dataset.UsersFingerprint()},      {kVocabulary, inputs_.features->vocabulary().Fingerprint()},
          {kInitial, inputs_.initial_sha256}};
}

absl::Status Trainer::Save(const std::string& path) {
  json curve = json::array();
  for (const EpochRecord& record : curve_) curve.push_back(ToJson(record));
  const json state = {{"options", ToJson(options_)},
                      {"config", json::parse(model::ConfigToJson(model_->config()))},
                      {"data", DescribeData()},
                      {"epoch", epoch_},
                      {"batch", batch_},
                      {"step", step_},
                      {"running",
                       {{"loss", running_.loss},
                        {"level_losses", running_.level_losses},
                        {"gradient_norm", running_.gradient_norm},
                        {"targets", running_.targets},
                        {"seconds", running_.seconds}}},
                      {"curve", curve},
                      {"best_score", best_score_},
                      {"worse", worse_},
                      {"stopped_early", stopped_early_}};
  return WriteCheckpoint(ctx_, {model_->config(), state, Parts()}, path);
}

// Types were right; this is about values no run of these options can reach.
absl::Status Trainer::CheckRestored(const std::string& path) const {
  const int64_t steps = model_->config().steps();
  const struct {
    absl::string_view field;
    int64_t value, low, high;
  } ranges[] = {
      {"epoch", epoch_, 0, options_.epochs},
      {"batch", batch_, 0, static_cast<int64_t>(examples_.Plan(epoch_).size())},
      {"step", step_, 0, std::numeric_limits<int32_t>::max()},
      {"running.level_losses' length", static_cast<int64_t>(running_.level_losses.size()), steps, steps},
      {"running.targets", running_.targets, 0, std::numeric_limits<int64_t>::max()},
      {"curve's length", static_cast<int64_t>(curve_.size()), epoch_, epoch_},
      {"worse", worse_, 0, epoch_},
  };
  for (const auto& range : ranges) {
    if (range.value >= range.low && range.value <= range.high) continue;
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", range.field, " is ", range.value, ", outside ",
                                                   range.low, "..", range.high,
                                                   "; the checkpoint is damaged: remove it"));
  }
  return absl::OkStatus();
}

absl::Status Trainer::Restore(const std::string& path) {
  if (best_.tensors().empty()) best_ = CloneWeights(weights_);  // room for what the file may hold
  BEAMLINE_ASSIGN_OR_RETURN(const ReadCheckpointResult read, ReadCheckpoint(ctx_, model_->config(), Parts(), path));
  if (!absl::c_linear_search(read.parts, "best")) best_ = model::Weights();
  const json& state = read.state;
  json saved_options, saved_config, saved_data, running, curve;
  BEAMLINE_RETURN_IF_ERROR(Read(state, "options", path, saved_options));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "config", path, saved_config));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "data", path, saved_data));
  BEAMLINE_RETURN_IF_ERROR(CheckSame("training option", saved_options, ToJson(options_), path));
  BEAMLINE_RETURN_IF_ERROR(
      CheckSame("the model's", saved_config, json::parse(model::ConfigToJson(model_->config())), path));
  const json data = DescribeData();
  for (const char* later : {kVocabulary, kInitial}) {  // which checkpoints had not from the beginning
    if (!saved_data.contains(later)) saved_data[later] = data[later];
  }
  BEAMLINE_RETURN_IF_ERROR(CheckSame("the data's", saved_data, data, path));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "epoch", path, epoch_));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "batch", path, batch_));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "step", path, step_));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "running", path, running));
  BEAMLINE_RETURN_IF_ERROR(Read(running, "loss", path, running_.loss));
  BEAMLINE_RETURN_IF_ERROR(Read(running, "level_losses", path, running_.level_losses));
  BEAMLINE_RETURN_IF_ERROR(Read(running, "gradient_norm", path, running_.gradient_norm));
  BEAMLINE_RETURN_IF_ERROR(Read(running, "targets", path, running_.targets));
  BEAMLINE_RETURN_IF_ERROR(Read(running, "seconds", path, running_.seconds));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "curve", path, curve));
  curve_.clear();
  for (const json& record : curve) {
    BEAMLINE_ASSIGN_OR_RETURN(EpochRecord parsed, EpochRecordFromJson(record, path));
    curve_.push_back(std::move(parsed));
  }
  BEAMLINE_RETURN_IF_ERROR(Read(state, "best_score", path, best_score_));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "worse", path, worse_));
  BEAMLINE_RETURN_IF_ERROR(Read(state, "stopped_early", path, stopped_early_));
  BEAMLINE_RETURN_IF_ERROR(CheckRestored(path));
  optimizer_.Restore(step_);
  return absl::OkStatus();
}

}  // namespace beamline::train
