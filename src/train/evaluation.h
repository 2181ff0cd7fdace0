// SPDX-License-Identifier: Apache-2.0
//
// How good a model is: full ranking of every user's held-out item among the whole catalogue, at item level, by the
// engine's own beam search, beside the counting baselines on the same cases, with bootstrap intervals and the paired
// difference to each of them; once with the targets of the history removed from the ranking and once with them kept.
// The baselines count over the training part alone, as everything else does, and rank the items that the model ranks,
// those of the catalogue: a target that it lacks is a miss of all of them. Pure but for the time it takes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "backend/context.h"
#include "base/progress.h"
#include "data/baselines.h"
#include "data/ranking_metrics.h"
#include "data/split.h"
#include "train/corpus.h"
#include "train/item_ranker.h"

namespace beamline::train {

struct EvaluationOptions {
  data::HeldOut held_out = data::HeldOut::kTest;
  int beam = 64;
  // The search's candidates in the order of the model's ranker, beside the beam's; else in the beam's alone.
  bool by_value = false;
  int max_users = 0;  // 0: all; else a fixed random subset
  int threads = 0;    // 0: one per core
  data::BootstrapOptions bootstrap;
  Progress* progress = nullptr;
};

struct SystemScores {
  std::string name;  // "model", "beam order" where the model is by value, "popularity", "markov", "item-knn"
  data::MetricIntervals intervals;
  std::optional<data::MetricIntervals> model_minus;  // paired difference of the model to this; none for the model
};

// One ranking rule: seen items removed, or kept.
struct RankingScores {
  data::SeenItems seen = data::SeenItems::kRemove;
  std::vector<SystemScores> systems;  // the model first
};

struct EvaluationReport {
  std::string split;    // "test" or "validation"
  std::string targets;  // DescribeTargets of the corpus
  int64_t users = 0;
  int64_t targets_without_sid = 0;  // of these users: nobody can rank them
  int64_t catalogue_items = 0;
  int64_t catalogue_sids = 0;
  std::string catalogue_version, codebook_fingerprint;
  std::string weights_sha256, config_sha256;  // of the model's files, where it comes from files
  int beam = 0;
  bool by_value = false;
  int max_users = 0;  // the limit that was set; 0: none
  double confidence = 0.95;
  int resamples = 0;  // of the intervals; 0: written before reports said it
  uint64_t seed = 0;
  double seconds = 0;  // of the model's ranking
  std::vector<RankingScores> rankings;
  std::vector<std::string> warnings;  // why the numbers may be too good
};

// Which of the cases the options choose, ascending.
std::vector<size_t> ChooseCases(absl::Span<const CorpusCase> all, const EvaluationOptions& options);

// On the corpus and the catalogue of `ranker`.
absl::StatusOr<EvaluationReport> Evaluate(const backend::Context& ctx, const model::Model& model,
                                          const ItemRanker& ranker, const EvaluationOptions& options);

std::string EvaluationTable(const EvaluationReport& report);
nlohmann::json EvaluationToJson(const EvaluationReport& report);
// Of a file written from EvaluationToJson; errors name `source` and every field that is missing, unknown or of another
// kind. Fields that reports had not from the start may be missing.
absl::StatusOr<EvaluationReport> EvaluationFromJson(const nlohmann::json& json, const std::string& source);

}  // namespace beamline::train
