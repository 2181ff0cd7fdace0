// SPDX-License-Identifier: Apache-2.0
#include "data/baselines.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"

namespace beamline::data {
namespace {

bool Contains(absl::Span<const uint32_t> sorted, uint32_t item) {
  return std::binary_search(sorted.begin(), sorted.end(), item);
}

std::vector<uint32_t> SortedUnique(absl::Span<const uint32_t> items) {
  std::vector<uint32_t> sorted(items.begin(), items.end());
  std::sort(sorted.begin(), sorted.end());
  sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
  return sorted;
}

double MeanRank(int64_t better, int64_t equal_others) {
  return static_cast<double>(better) + 1 + static_cast<double>(equal_others) / 2;
}

}  // namespace

absl::Status CountingBaseline::Fit(const ItemSequences& training, std::vector<bool> ranked) {
  if (!ranked.empty() && ranked.size() != training.num_items) {
    return absl::InvalidArgumentError(
        absl::StrCat("ranked: of ", ranked.size(), " items, the sequences have ", training.num_items));
  }
  for (const uint32_t item : training.items) {
    if (item >= training.num_items) {
      return absl::InvalidArgumentError(absl::StrCat("item index ", item, " of ", training.num_items, " items"));
    }
  }
  ranked_ = std::move(ranked);
  popularity_.assign(training.num_items, 0);
  for (const uint32_t item : training.items) ++popularity_[item];
  sorted_counts_.clear();
  for (uint32_t item = 0; item < training.num_items; ++item) {
    if (IsRanked(item)) sorted_counts_.push_back(popularity_[item]);
  }
  std::sort(sorted_counts_.begin(), sorted_counts_.end());
  Count(training);
  return CheckInterrupted();
}

double CountingBaseline::Rank(absl::Span<const uint32_t> history, uint32_t target, SeenItems seen) const {
  std::vector<uint32_t> removed;
  if (seen == SeenItems::kRemove) removed = SortedUnique(history);
  std::erase_if(removed, [&](uint32_t item) { return !IsRanked(item); });
  if (!IsRanked(target) || Contains(removed, target)) return kMissRank;
  std::vector<Evidence> evidence;
  Collect(history, &evidence);
  std::erase_if(evidence,
                [&](const Evidence& entry) { return !IsRanked(entry.item) || Contains(removed, entry.item); });

  const auto own = std::find_if(evidence.begin(), evidence.end(), [&](const Evidence& e) { return e.item == target; });
  if (own != evidence.end()) {
    int64_t better = 0;
    int64_t equal = -1;  // the target itself
    for (const Evidence& entry : evidence) {
      better += entry.key > own->key;
      equal += entry.key == own->key;
    }
    return MeanRank(better, equal);
  }

  // In the background: every item with evidence is better; of the others count all, then take away what is not there.
  int64_t better = 0;
  int64_t equal = static_cast<int64_t>(sorted_counts_.size()) - 1;
  const uint32_t count = popularity_[target];
  if (background_by_popularity()) {
    const auto [low, high] = std::equal_range(sorted_counts_.begin(), sorted_counts_.end(), count);
    better = sorted_counts_.end() - high;
    equal = (high - low) - 1;
  }
  const auto take_away = [&](uint32_t item) {
    if (background_by_popularity() && popularity_[item] > count) --better;
    if (!background_by_popularity() || popularity_[item] == count) --equal;
  };
  for (const Evidence& entry : evidence) take_away(entry.item);
  for (const uint32_t item : removed) take_away(item);
  return MeanRank(static_cast<int64_t>(evidence.size()) + better, equal);
}

std::vector<double> RankTargets(const CountingBaseline& baseline, absl::Span<const EvaluationCase> cases,
                                SeenItems seen, ThreadPool* pool) {
  constexpr int64_t kGrain = 256;
  std::vector<double> ranks(cases.size());
  ParallelFor(pool, static_cast<int64_t>(cases.size()), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end && !Interrupted(); ++at)
      ranks[at] = baseline.Rank(cases[at].history, cases[at].target, seen);
  });
  return ranks;
}

}  // namespace beamline::data
