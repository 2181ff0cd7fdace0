// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/json_object_reader.h"
#include "train/evaluation.h"

namespace beamline::train {
namespace {

using nlohmann::json;

constexpr size_t kMostParts = 1000;  // of any list of a report
constexpr char kRemoved[] = "removed", kKept[] = "kept";
constexpr char kOldDifference[] = "model_minus_item_knn";

json ToJson(const data::Interval& interval) {
  return {{"mean", interval.mean}, {"low", interval.low}, {"high", interval.high}};
}

json ToJson(const data::MetricIntervals& metrics) {
  return {{"recall_5", ToJson(metrics.recall_5)},
          {"ndcg_5", ToJson(metrics.ndcg_5)},
          {"recall_10", ToJson(metrics.recall_10)},
          {"ndcg_10", ToJson(metrics.ndcg_10)}};
}

data::Interval IntervalFrom(const json& object, const std::string& path, std::vector<std::string>& problems) {
  data::Interval interval;
  JsonObjectReader reader(object, path, problems);
  reader.Double("low", interval.low);
  reader.Double("mean", interval.mean);
  reader.Double("high", interval.high);
  reader.Finish();
  return interval;
}

data::MetricIntervals IntervalsFrom(const json& object, const std::string& path, std::vector<std::string>& problems) {
  data::MetricIntervals metrics;
  JsonObjectReader reader(object, path, problems);
  const std::pair<const char*, data::Interval*> named[] = {{"recall_5", &metrics.recall_5},
                                                           {"ndcg_5", &metrics.ndcg_5},
                                                           {"recall_10", &metrics.recall_10},
                                                           {"ndcg_10", &metrics.ndcg_10}};
  for (const auto& [key, interval] : named) {
    if (const json* value = reader.Find(key, true)) *interval = IntervalFrom(*value, reader.Path(key), problems);
  }
  reader.Finish();
  return metrics;
}

SystemScores SystemFrom(const json& object, const std::string& path, std::vector<std::string>& problems) {
  SystemScores system;
  JsonObjectReader reader(object, path, problems);
  reader.String("name", system.name);
  if (const json* metrics = reader.Find("metrics", true)) {
    system.intervals = IntervalsFrom(*metrics, reader.Path("metrics"), problems);
  }
  if (const json* difference = reader.Find("model_minus", false)) {
    system.model_minus = IntervalsFrom(*difference, reader.Path("model_minus"), problems);
  }
  reader.Finish();
  return system;
}

RankingScores RankingFrom(const json& object, const std::string& path, std::vector<std::string>& problems) {
  RankingScores scores;
  JsonObjectReader reader(object, path, problems);
  std::string seen = kRemoved;
  reader.String("seen_items", seen);
  if (seen != kRemoved && seen != kKept) {
    reader.Problem("seen_items", absl::StrCat("must be ", kRemoved, " or ", kKept, ", is '", seen, "'"));
  }
  scores.seen = seen == kRemoved ? data::SeenItems::kRemove : data::SeenItems::kKeep;
  if (const json* systems = reader.Array("systems", true, kMostParts)) {
    for (size_t i = 0; i < systems->size(); ++i) {
      scores.systems.push_back(SystemFrom((*systems)[i], absl::StrCat(reader.Path("systems"), "[", i, "]"), problems));
    }
  }
  if (reader.Find(kOldDifference, false) != nullptr) {
    reader.Problem(kOldDifference,
                   "is of an older layout; it is model_minus of the system item-knn now, move it there");
  }
  reader.Finish();
  return scores;
}

void ReadWarnings(JsonObjectReader& reader, std::vector<std::string>& out) {
  const json* warnings = reader.Array("warnings", false, kMostParts);
  if (warnings == nullptr) return;
  for (const json& warning : *warnings) {
    if (!warning.is_string()) return reader.Problem("warnings", "must be strings");
    out.push_back(warning.get<std::string>());
  }
}

EvaluationReport ReportFrom(const json& object, std::vector<std::string>& problems) {
  EvaluationReport report;
  JsonObjectReader reader(object, "", problems);
  reader.String("split", report.split);
  reader.Int("users", report.users);
  reader.Int("catalogue_items", report.catalogue_items);
  reader.Int("catalogue_sids", report.catalogue_sids);
  reader.Int("beam", report.beam);
  reader.Double("confidence", report.confidence);
  reader.Double("seconds", report.seconds);
  // Later than the first reports.
  reader.String("targets", report.targets, false);
  reader.Int("targets_without_sid", report.targets_without_sid, false);
  reader.String("catalogue_version", report.catalogue_version, false);
  reader.String("codebook_fingerprint", report.codebook_fingerprint, false);
  reader.String("weights_sha256", report.weights_sha256, false);
  reader.String("config_sha256", report.config_sha256, false);
  reader.Bool("by_value", report.by_value, false);
  reader.Int("max_users", report.max_users, false);
  reader.Int("resamples", report.resamples, false);
  reader.Int("seed", report.seed, false);
  ReadWarnings(reader, report.warnings);
  if (const json* rankings = reader.Array("rankings", true, kMostParts)) {
    for (size_t i = 0; i < rankings->size(); ++i) {
      report.rankings.push_back(RankingFrom((*rankings)[i], absl::StrCat("rankings[", i, "]"), problems));
    }
  }
  reader.Finish();
  return report;
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
        {{"seen_items", ranking.seen == data::SeenItems::kRemove ? kRemoved : kKept}, {"systems", systems}});
  }
  return {{"split", report.split},
          {"targets", report.targets},
          {"users", report.users},
          {"targets_without_sid", report.targets_without_sid},
          {"catalogue_items", report.catalogue_items},
          {"catalogue_sids", report.catalogue_sids},
          {"catalogue_version", report.catalogue_version},
          {"codebook_fingerprint", report.codebook_fingerprint},
          {"weights_sha256", report.weights_sha256},
          {"config_sha256", report.config_sha256},
          {"beam", report.beam},
          {"by_value", report.by_value},
          {"max_users", report.max_users},
          {"confidence", report.confidence},
          {"resamples", report.resamples},
          {"seed", report.seed},
          {"seconds", report.seconds},
          {"rankings", rankings},
          {"warnings", report.warnings}};
}

absl::StatusOr<EvaluationReport> EvaluationFromJson(const json& object, const std::string& source) {
  std::vector<std::string> problems;
  EvaluationReport report = ReportFrom(object, problems);
  if (problems.empty()) return report;
  return absl::InvalidArgumentError(absl::StrCat(
      source, ": not one evaluation as `beamline evaluate --out` writes it: ", absl::StrJoin(problems, "; "),
      "; correct the file, or evaluate again"));
}

}  // namespace beamline::train
