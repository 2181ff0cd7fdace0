// SPDX-License-Identifier: Apache-2.0
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "train/evaluation.h"

namespace beamline::train {
namespace {

using nlohmann::json;

json ToJson(const data::Interval& interval) {
  return {{"mean", interval.mean}, {"low", interval.low}, {"high", interval.high}};
}

json ToJson(const data::MetricIntervals& metrics) {
  return {{"recall_5", ToJson(metrics.recall_5)},
          {"ndcg_5", ToJson(metrics.ndcg_5)},
          {"recall_10", ToJson(metrics.recall_10)},
          {"ndcg_10", ToJson(metrics.ndcg_10)}};
}

data::Interval IntervalFrom(const json& object) {
  return {.low = object.at("low").get<double>(),
          .mean = object.at("mean").get<double>(),
          .high = object.at("high").get<double>()};
}

data::MetricIntervals IntervalsFrom(const json& object) {
  return {.recall_5 = IntervalFrom(object.at("recall_5")),
          .ndcg_5 = IntervalFrom(object.at("ndcg_5")),
          .recall_10 = IntervalFrom(object.at("recall_10")),
          .ndcg_10 = IntervalFrom(object.at("ndcg_10"))};
}

}  // namespace

json EvaluationToJson(const EvaluationReport& report) {
  json rankings = json::array();
  for (const RankingScores& ranking : report.rankings) {
    json systems = json::array();
    for (const SystemScores& system : ranking.systems) {
      json& one = systems.emplace_back(json{{"name", system.name}, {"metrics", ToJson(system.intervals)}});
      if (system.model_minus.has_value()) one["model_minus"] = ToJson(*system.model_minus);
    }
    rankings.push_back(
        {{"seen_items", ranking.seen == data::SeenItems::kRemove ? "removed" : "kept"}, {"systems", systems}});
  }
  return {{"split", report.split},
          {"users", report.users},
          {"catalogue_items", report.catalogue_items},
          {"catalogue_sids", report.catalogue_sids},
          {"beam", report.beam},
          {"by_value", report.by_value},
          {"confidence", report.confidence},
          {"seconds", report.seconds},
          {"rankings", rankings},
          {"warnings", report.warnings}};
}

absl::StatusOr<EvaluationReport> EvaluationFromJson(const json& object, const std::string& source) {
  EvaluationReport report;
  try {
    report.split = object.at("split").get<std::string>();
    report.users = object.at("users").get<int64_t>();
    report.catalogue_items = object.at("catalogue_items").get<int64_t>();
    report.catalogue_sids = object.at("catalogue_sids").get<int64_t>();
    report.beam = object.at("beam").get<int>();
    report.by_value = object.value("by_value", false);
    report.confidence = object.at("confidence").get<double>();
    report.seconds = object.at("seconds").get<double>();
    if (object.contains("warnings")) report.warnings = object.at("warnings").get<std::vector<std::string>>();
    for (const json& ranking : object.at("rankings")) {
      RankingScores scores;
      scores.seen =
          ranking.at("seen_items").get<std::string>() == "removed" ? data::SeenItems::kRemove : data::SeenItems::kKeep;
      for (const json& system : ranking.at("systems")) {
        SystemScores& one = scores.systems.emplace_back();
        one.name = system.at("name").get<std::string>();
        one.intervals = IntervalsFrom(system.at("metrics"));
        if (system.contains("model_minus")) one.model_minus = IntervalsFrom(system.at("model_minus"));
      }
      report.rankings.push_back(std::move(scores));
    }
  } catch (const json::exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(source, ": not an evaluation written by `beamline evaluate`: ", error.what()));
  }
  return report;
}

}  // namespace beamline::train
