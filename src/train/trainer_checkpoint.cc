// SPDX-License-Identifier: Apache-2.0
//
// A trainer's state to and from its checkpoint.
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "base/json_object_reader.h"
#include "beamline/status.h"
#include "beamline/types.h"
#include "model/config.h"
#include "train/trainer.h"

namespace beamline::train {
namespace {

using nlohmann::json;

constexpr size_t kMaxSteps = kMaxLevels + 1;  // a scored end token is one more
constexpr char kVocabulary[] = "vocabulary", kInitial[] = "weights to begin with (--from)";

absl::Status ErrorOf(const std::vector<std::string>& problems, const std::string& source) {
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": ", absl::StrJoin(problems, "; "), "; the checkpoint is damaged: remove it"));
}

void ReadDoubles(JsonObjectReader& reader, const char* key, std::vector<double>& values) {
  const json* array = reader.Array(key, true, kMaxSteps);
  if (array == nullptr) return;
  values.clear();
  for (const json& value : *array) {
    if (!value.is_number()) return reader.Problem(key, absl::StrCat("must hold numbers, holds ", value.type_name()));
    values.push_back(value.get<double>());
  }
}

data::RankingMetrics MetricsFromJson(const json& object, const std::string& path, std::vector<std::string>& problems) {
  data::RankingMetrics metrics;
  JsonObjectReader reader(object, path, problems);
  reader.Double("recall_5", metrics.recall_5);
  reader.Double("ndcg_5", metrics.ndcg_5);
  reader.Double("recall_10", metrics.recall_10);
  reader.Double("ndcg_10", metrics.ndcg_10);
  return metrics;
}

EpochRecord EpochRecordFromJson(const json& object, int epoch, const std::string& path,
                                std::vector<std::string>& problems) {
  EpochRecord record;
  JsonObjectReader reader(object, path, problems);
  reader.Int("epoch", record.epoch);
  reader.Int("step", record.step);
  reader.Double("loss", record.loss);
  ReadDoubles(reader, "level_losses", record.level_losses);
  reader.Double("learning_rate", record.learning_rate);
  reader.Double("gradient_norm", record.gradient_norm);
  reader.Int("targets", record.targets);
  reader.Double("seconds", record.seconds);
  reader.Bool("best", record.best);
  if (record.epoch != epoch) reader.Problem("epoch", absl::StrCat("must be ", epoch, ", is ", record.epoch));
  if (record.step < 0) reader.Problem("step", absl::StrCat("must be 0 or more, is ", record.step));
  if (record.targets < 0) reader.Problem("targets", absl::StrCat("must be 0 or more, is ", record.targets));
  if (const json* validation = reader.Find("validation", false)) {
    record.validation = MetricsFromJson(*validation, reader.Path("validation"), problems);
  }
  return record;
}

json ToJson(const data::RankingMetrics& metrics) {
  return {{"recall_5", metrics.recall_5},
          {"ndcg_5", metrics.ndcg_5},
          {"recall_10", metrics.recall_10},
          {"ndcg_10", metrics.ndcg_10}};
}

absl::Status CheckSame(absl::string_view what, const json& saved, const json& ours, const std::string& source) {
  json all = saved;  // fields of either
  all.update(ours);
  const auto text = [](const json& of, const std::string& name) {
    return of.contains(name) ? of[name].dump() : "none";
  };
  std::vector<std::string> other;
  for (const auto& [name, value] : all.items()) {
    if (text(saved, name) == text(ours, name)) continue;
    other.push_back(absl::StrCat(name, " is ", text(saved, name), ", this run has ", text(ours, name)));
  }
  if (other.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(source, ": ", what, " ", absl::StrJoin(other, "; "),
                                                    "; resume with the same command, or train into another folder"));
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
  json data = {{"steps_per_epoch", steps_per_epoch_},      {"targets", inputs_.corpus->target_items().items.size()},
               {"catalogue", inputs_.snapshot->version()}, {"events", dataset.EventsFingerprint()},
               {"users", dataset.UsersFingerprint()},      {kVocabulary, inputs_.features->vocabulary().Fingerprint()},
               {kInitial, inputs_.initial_sha256}};
  if (const auto& split = inputs_.corpus->options().time_split) data["split_at"] = DescribeTimeSplit(*split);
  return data;
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
  std::vector<std::string> problems;
  JsonObjectReader reader(state, "", problems);
  const json *saved_options = reader.Find("options", true), *saved_config = reader.Find("config", true),
             *saved_data = reader.Find("data", true);
  BEAMLINE_RETURN_IF_ERROR(ErrorOf(problems, path));
  BEAMLINE_RETURN_IF_ERROR(CheckSame("training option", *saved_options, ToJson(options_), path));
  BEAMLINE_RETURN_IF_ERROR(
      CheckSame("the model's", *saved_config, json::parse(model::ConfigToJson(model_->config())), path));
  json data = DescribeData();
  for (const char* later : {kVocabulary, kInitial}) {  // which checkpoints had not from the beginning
    if (!saved_data->contains(later)) data.erase(later);
  }
  BEAMLINE_RETURN_IF_ERROR(CheckSame("the data's", *saved_data, data, path));
  reader.Int("epoch", epoch_);
  reader.Int("batch", batch_);
  reader.Int("step", step_);
  if (const json* running = reader.Find("running", true)) {
    JsonObjectReader own(*running, "running", problems);
    own.Double("loss", running_.loss);
    ReadDoubles(own, "level_losses", running_.level_losses);
    own.Double("gradient_norm", running_.gradient_norm);
    own.Int("targets", running_.targets);
    own.Double("seconds", running_.seconds);
  }
  curve_.clear();
  if (const json* curve = reader.Array("curve", true, options_.epochs)) {
    for (size_t i = 0; i < curve->size(); ++i) {
      curve_.push_back(
          EpochRecordFromJson(curve->at(i), static_cast<int>(i) + 1, absl::StrCat("curve[", i, "]"), problems));
    }
  }
  reader.Double("best_score", best_score_);
  reader.Int("worse", worse_);
  reader.Bool("stopped_early", stopped_early_);
  BEAMLINE_RETURN_IF_ERROR(ErrorOf(problems, path));
  BEAMLINE_RETURN_IF_ERROR(CheckRestored(path));
  optimizer_.Restore(step_);
  return absl::OkStatus();
}

}  // namespace beamline::train
