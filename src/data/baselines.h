// SPDX-License-Identifier: Apache-2.0
//
// Counting baselines, the floors every model is compared with: popularity, first-order Markov and item-KNN. All count
// over training sequences only and rank the full catalogue, items 0..num_items-1, or those of them
// that a catalogue holds: what else the sequences contain is history, and counts as such.
//
// A baseline splits its ranking in two: a sparse list of items with evidence for this history, best first by key, then
// everything else in a background order:
//   popularity  no evidence; background = number of events
//   Markov      evidence = transitions from the last item, ties by popularity; background = popularity
//   item-KNN    evidence = sum over the last 20 items i of .9^age S_ij, age 0 the newest,
//               S_ij = C_ij / sqrt(C_ii C_jj), S_ii = 0, C_ij = users with both i and j; background = all equal
// Equal items share their mean rank, 1 being best. Fit is not thread-safe; a fitted baseline is immutable and is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/item_sequences.h"
#include "base/thread_pool.h"
#include "data/ranking_metrics.h"
#include "data/split.h"

namespace beamline::data {

// Whether items of the history may be ranked. Where they are removed, a target in the history is a miss.
enum class SeenItems { kKeep, kRemove };

class CountingBaseline {
 public:
  struct Evidence {
    uint32_t item = 0;
    double key = 0;  // larger is better; equal keys tie
  };

  virtual ~CountingBaseline() = default;
  virtual std::string_view name() const = 0;
  // `ranked`: by item, whether it is ranked; empty: all are. INVALID_ARGUMENT if an item index is not below num_items,
  // or `ranked` is of another length. CANCELLED after an interrupt.
  absl::Status Fit(const ItemSequences& training, std::vector<bool> ranked = {});

  // Rank of `target` after `history` (oldest first), or kMissRank, as of items that are not ranked. Items must be below
  // num_items.
  double Rank(absl::Span<const uint32_t> history, uint32_t target, SeenItems seen) const;

 protected:
  virtual void Count(const ItemSequences& training) = 0;
  // Items with evidence, each once, in any order.
  virtual void Collect(absl::Span<const uint32_t> history, std::vector<Evidence>* evidence) const = 0;
  // Whether the items without evidence are ordered by popularity; else they all tie.
  virtual bool background_by_popularity() const = 0;

  const std::vector<uint32_t>& popularity() const { return popularity_; }  // events per item

 private:
  bool IsRanked(uint32_t item) const { return ranked_.empty() || ranked_[item]; }

  std::vector<bool> ranked_;  // empty: all
  std::vector<uint32_t> popularity_;
  std::vector<uint32_t> sorted_counts_;  // of ranked items alone, ascending
};

struct ItemKnnOptions {
  int last_items = 20;
  double decay = 0.9;
  // Of rows of similarities, 8 bytes each, of the items that most users have; all others are made from the users'
  // histories each time, so that a log of long histories takes no more memory. Ranks are the same.
  size_t kept_entries = size_t{32} << 20;
};

std::unique_ptr<CountingBaseline> MakePopularity();
std::unique_ptr<CountingBaseline> MakeMarkov();
std::unique_ptr<CountingBaseline> MakeItemKnn(const ItemKnnOptions& options = {});

// Ranks of the cases' targets, aligned with `cases`. `pool` may be null (one thread); the result is the same. Stops
// early when Interrupted(): check that afterwards.
std::vector<double> RankTargets(const CountingBaseline& baseline, absl::Span<const EvaluationCase> cases,
                                SeenItems seen, ThreadPool* pool = nullptr);

}  // namespace beamline::data
