// SPDX-License-Identifier: Apache-2.0
#include "sid/cooccurrence.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "base/interrupt.h"
#include "beamline/status.h"

namespace beamline::sid {
namespace {

constexpr int64_t kRowTasks = 256;

// Where an item stands: user and position in that user's kept events.
struct Occurrence {
  uint32_t user;
  uint32_t position;
};

// Users' newest events, and per item its occurrences in user order.
class Occurrences {
 public:
  Occurrences(const ItemSequences& sequences, int max_user_events) : sequences_(sequences), max_(max_user_events) {
    offsets_.assign(sequences.num_items + 1, 0);
    for (int64_t u = 0; u < sequences.users(); ++u) {
      for (const uint32_t item : kept(u)) ++offsets_[item + 1];
    }
    for (size_t i = 1; i < offsets_.size(); ++i) offsets_[i] += offsets_[i - 1];
    occurrences_.resize(offsets_.back());
    std::vector<uint64_t> next(offsets_.begin(), offsets_.end() - 1);
    for (int64_t u = 0; u < sequences.users(); ++u) {
      uint32_t position = 0;
      for (const uint32_t item : kept(u)) occurrences_[next[item]++] = {static_cast<uint32_t>(u), position++};
    }
  }

  absl::Span<const uint32_t> kept(int64_t user) const {
    const absl::Span<const uint32_t> items = sequences_.user(user);
    return items.size() > static_cast<size_t>(max_) ? items.last(max_) : items;
  }
  absl::Span<const Occurrence> of(int64_t item) const {
    return absl::MakeConstSpan(occurrences_).subspan(offsets_[item], offsets_[item + 1] - offsets_[item]);
  }

 private:
  const ItemSequences& sequences_;
  int max_;
  std::vector<uint64_t> offsets_;
  std::vector<Occurrence> occurrences_;
};

// Counts one item's partners over all users; reused from item to item.
class RowCounter {
 public:
  RowCounter(const Occurrences& occurrences, int64_t num_items, int window)
      : occurrences_(occurrences), window_(window), counts_(num_items, 0), last_user_(num_items, 0) {}

  // Partners of the item, ascending; their counts are in count().
  const std::vector<uint32_t>& Count(uint32_t item) {
    for (const uint32_t partner : partners_) counts_[partner] = 0;
    partners_.clear();
    for (const Occurrence& at : occurrences_.of(item)) {
      const absl::Span<const uint32_t> events = occurrences_.kept(at.user);
      const size_t reach = window_ == 0 ? events.size() : static_cast<size_t>(window_);
      const size_t begin = at.position > reach ? at.position - reach : 0;
      const size_t end = std::min(events.size(), at.position + reach + 1);
      for (size_t p = begin; p < end; ++p) Add(item, events[p], at.user);
    }
    for (const uint32_t partner : partners_) last_user_[partner] = 0;
    std::sort(partners_.begin(), partners_.end());
    return partners_;
  }
  uint32_t count(uint32_t partner) const { return counts_[partner]; }

 private:
  // A user counts a pair once: occurrences come user by user, so the last user counted tells.
  void Add(uint32_t item, uint32_t partner, uint32_t user) {
    if (partner == item || last_user_[partner] == user + 1) return;
    last_user_[partner] = user + 1;
    if (counts_[partner]++ == 0) partners_.push_back(partner);
  }

  const Occurrences& occurrences_;
  int window_;
  std::vector<uint32_t> counts_;
  std::vector<uint32_t> last_user_;  // user + 1
  std::vector<uint32_t> partners_;
};

struct Entry {
  uint32_t column;
  float value;
};

void KeepLargest(std::vector<Entry>& row, size_t count) {
  if (row.size() <= count) return;
  const auto larger = [](const Entry& a, const Entry& b) {
    return a.value != b.value ? a.value > b.value : a.column < b.column;
  };
  std::nth_element(row.begin(), row.begin() + static_cast<int64_t>(count), row.end(), larger);
  row.resize(count);
  std::sort(row.begin(), row.end(), [](const Entry& a, const Entry& b) { return a.column < b.column; });
}

SparseMatrix Join(const std::vector<std::vector<Entry>>& rows, int64_t cols) {
  SparseMatrix matrix;
  matrix.cols = cols;
  size_t entries = 0;
  for (const auto& row : rows) entries += row.size();
  matrix.columns.reserve(entries);
  matrix.values.reserve(entries);
  for (const auto& row : rows) {
    for (const Entry& entry : row) {
      matrix.columns.push_back(entry.column);
      matrix.values.push_back(entry.value);
    }
    matrix.offsets.push_back(matrix.columns.size());
  }
  return matrix;
}

}  // namespace

absl::StatusOr<SparseMatrix> BuildPpmi(const ItemSequences& sequences, const CollaborativeEmbeddingOptions& options,
                                       ThreadPool* pool, Progress* progress) {
  const int64_t n = sequences.num_items;
  const Occurrences occurrences(sequences, options.max_user_events);
  const int64_t grain = std::max<int64_t>(1, (n + kRowTasks - 1) / kRowTasks);
  StartProgress(progress, "co-occurrence", 2 * n, "items");
  std::atomic<int64_t> done = 0;  // for the bar only
  const auto for_rows = [&](absl::FunctionRef<void(RowCounter&, int64_t)> work) {
    ParallelFor(pool, n, grain, [&](int64_t begin, int64_t end) {
      RowCounter counter(occurrences, n, options.window);
      for (int64_t item = begin; item < end && !Interrupted(); ++item) work(counter, item);
      UpdateProgress(progress, done += end - begin);
    });
  };
  // The marginals come first, in a pass of their own: keeping all counts would cost more memory than counting twice.
  std::vector<double> total(n, 0.0);
  for_rows([&](RowCounter& counter, int64_t item) {
    for (const uint32_t partner : counter.Count(static_cast<uint32_t>(item))) total[item] += counter.count(partner);
  });
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  std::vector<double> context(n);
  double context_total = 0;
  for (int64_t i = 0; i < n; ++i) context_total += context[i] = std::pow(total[i], options.context_smoothing);

  std::vector<std::vector<Entry>> rows(n);
  for_rows([&](RowCounter& counter, int64_t item) {
    for (const uint32_t partner : counter.Count(static_cast<uint32_t>(item))) {
      const double ratio = counter.count(partner) * context_total / (total[item] * context[partner]);
      const double value = std::log(ratio) - options.shift;
      if (value > 0) rows[item].push_back({partner, static_cast<float>(value)});
    }
    KeepLargest(rows[item], static_cast<size_t>(options.max_neighbours));
  });
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  FinishProgress(progress);
  return Join(rows, n);
}

SparseMatrix BuildAttributeBlock(const ItemAttributeKeys& attributes, int64_t num_items) {
  absl::flat_hash_map<std::string, uint32_t> column_of;
  std::vector<int64_t> holders;
  std::vector<std::vector<uint32_t>> row_keys(attributes.keys.size());
  for (size_t i = 0; i < attributes.keys.size(); ++i) {
    absl::flat_hash_set<uint32_t> seen;
    for (const std::string& key : attributes.keys[i]) {
      const auto [it, added] = column_of.emplace(key, static_cast<uint32_t>(holders.size()));
      if (added) holders.push_back(0);
      if (!seen.insert(it->second).second) continue;
      ++holders[it->second];
      row_keys[i].push_back(it->second);
    }
  }
  // Keys of one item, or of all, tell nothing; the others are numbered in order of first appearance.
  std::vector<int64_t> renumbered(holders.size(), -1);
  int64_t cols = 0;
  for (size_t k = 0; k < holders.size(); ++k) {
    if (holders[k] >= 2 && holders[k] < num_items) renumbered[k] = cols++;
  }
  std::vector<std::vector<Entry>> rows(num_items);
  for (size_t i = 0; i < row_keys.size(); ++i) {
    double norm = 0;
    for (const uint32_t key : row_keys[i]) {
      if (renumbered[key] < 0) continue;
      const double weight = std::log(static_cast<double>(num_items) / static_cast<double>(holders[key]));
      rows[i].push_back({static_cast<uint32_t>(renumbered[key]), static_cast<float>(weight)});
      norm += weight * weight;
    }
    for (Entry& entry : rows[i]) entry.value = static_cast<float>(entry.value / std::sqrt(norm));
    std::sort(rows[i].begin(), rows[i].end(), [](const Entry& a, const Entry& b) { return a.column < b.column; });
  }
  return Join(rows, cols);
}

}  // namespace beamline::sid
