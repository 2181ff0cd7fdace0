// SPDX-License-Identifier: Apache-2.0
//
// Full-catalogue ranks of held-out items by the engine's own beam search: the rank of a case's target among the items
// under the leaves the search returns, in the beam's order or in that of the model's ranker, inside a SID by the
// snapshot's relevance (training popularity) and then id. A target the search does not return has no rank
// (data::kMissRank): with B beams at least the first B items are exact as far as the beam is, so B must exceed the
// cut-off. Seen items are denied before the search, which is exact.
//
// Thread-safe; Rank uses several threads of its own, each with one torch thread. The ranks do not depend on how many.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "backend/context.h"
#include "base/progress.h"
#include "catalogue/rule_cache.h"
#include "catalogue/snapshot.h"
#include "model/model.h"
#include "runtime/feature_builder.h"
#include "train/corpus.h"

namespace beamline::train {

struct RankOptions {
  int beam = 64;             // at every level
  bool exclude_seen = true;  // target items of the history
  bool by_value = false;     // the leaves by the value that the model's ranker gives them, not by the beam's score
  int batch = 64;            // cases searched together
  int threads = 0;           // 0: one per core
  size_t list = 0;           // items of a case that are returned
  Progress* progress = nullptr;
};

// Of cases, in their order.
struct CaseRankings {
  std::vector<double> ranks;               // of the held-out target, 1 being best
  std::vector<std::vector<ItemId>> lists;  // the best items, best first: what the target was looked up in
};

class ItemRanker {
 public:
  // `corpus` and `features` outlive the ranker. Errors: the catalogue's levels are not those of the model.
  static absl::StatusOr<ItemRanker> Create(const Corpus& corpus, const runtime::FeatureBuilder& features,
                                           std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot);

  // CANCELLED after Ctrl-C; FAILED_PRECONDITION: by_value of a model without a ranker. A model that yields NaN is
  // INTERNAL.
  absl::StatusOr<CaseRankings> Rank(const backend::Context& ctx, const model::Model& model,
                                    absl::Span<const CorpusCase> cases, const RankOptions& options) const;

  const Corpus& corpus() const { return *corpus_; }
  const catalogue::CatalogueSnapshot& snapshot() const { return *snapshot_; }

 private:
  ItemRanker(const Corpus& corpus, const runtime::FeatureBuilder& features,
             std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot);
  // Of each case all items under the leaves of its search, best first.
  absl::StatusOr<std::vector<std::vector<ItemId>>> RankedItems(backend::Context ctx, const model::Model& model,
                                                               absl::Span<const CorpusCase> cases,
                                                               const RankOptions& options) const;

  const Corpus* corpus_;
  const runtime::FeatureBuilder* features_;
  std::shared_ptr<const catalogue::CatalogueSnapshot> snapshot_;
  std::unique_ptr<catalogue::RuleCache> rules_;
};

}  // namespace beamline::train
