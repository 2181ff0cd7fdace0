// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <utility>

#include "data/baselines.h"

namespace beamline::data {
namespace {

// For each row a list of (item, value), in one flat array.
struct SparseRows {
  struct Entry {
    uint32_t item = 0;
    float value = 0;
  };
  std::vector<uint64_t> offsets{0};  // [rows + 1]
  std::vector<Entry> entries;

  absl::Span<const Entry> row(uint32_t index) const {
    return absl::MakeConstSpan(entries).subspan(offsets[index], offsets[index + 1] - offsets[index]);
  }
};

// Turns a list of lists into rows of equal items together: rows[item] = what `visit` adds for it. `visit(add)` is
// called twice, once to count and once to fill, so that memory is exact.
template <typename Visit>
std::pair<std::vector<uint64_t>, std::vector<uint32_t>> GroupByItem(uint32_t num_items, const Visit& visit) {
  std::vector<uint64_t> offsets(num_items + 1, 0);
  visit([&](uint32_t item, uint32_t) { ++offsets[item + 1]; });
  for (uint32_t item = 0; item < num_items; ++item) offsets[item + 1] += offsets[item];
  std::vector<uint32_t> values(offsets.back());
  std::vector<uint64_t> next(offsets.begin(), offsets.end() - 1);
  visit([&](uint32_t item, uint32_t value) { values[next[item]++] = value; });
  return {std::move(offsets), std::move(values)};
}

class Popularity final : public CountingBaseline {
 public:
  std::string_view name() const override { return "popularity"; }

 protected:
  void Count(const ItemSequences&) override {}
  void Collect(absl::Span<const uint32_t>, std::vector<Evidence>*) const override {}
  bool background_by_popularity() const override { return true; }
};

class Markov final : public CountingBaseline {
 public:
  std::string_view name() const override { return "markov"; }

 protected:
  void Count(const ItemSequences& training) override {
    const auto [offsets, followers] = GroupByItem(training.num_items, [&](const auto& add) {
      for (int64_t user = 0; user < training.users(); ++user) {
        const absl::Span<const uint32_t> items = training.user(user);
        for (size_t at = 0; at + 1 < items.size(); ++at) add(items[at], items[at + 1]);
      }
    });
    transitions_ = {};
    std::vector<uint32_t> row;
    for (uint32_t item = 0; item < training.num_items; ++item) {
      row.assign(followers.begin() + offsets[item], followers.begin() + offsets[item + 1]);
      std::sort(row.begin(), row.end());
      for (size_t at = 0; at < row.size();) {
        const size_t end = std::upper_bound(row.begin() + at, row.end(), row[at]) - row.begin();
        transitions_.entries.push_back({row[at], static_cast<float>(end - at)});
        at = end;
      }
      transitions_.offsets.push_back(transitions_.entries.size());
    }
    largest_ = 0;
    for (const uint32_t count : popularity()) largest_ = std::max(largest_, count);
  }

  void Collect(absl::Span<const uint32_t> history, std::vector<Evidence>* evidence) const override {
    if (history.empty()) return;
    // Whole transitions first, popularity below one transition.
    for (const SparseRows::Entry& entry : transitions_.row(history.back())) {
      evidence->push_back({entry.item, entry.value + popularity()[entry.item] / (largest_ + 1.0)});
    }
  }
  bool background_by_popularity() const override { return true; }

 private:
  SparseRows transitions_;  // [from] (to, times)
  uint32_t largest_ = 0;    // count of the most popular item
};

class ItemKnn final : public CountingBaseline {
 public:
  explicit ItemKnn(const ItemKnnOptions& options) : options_(options) {}
  std::string_view name() const override { return "item-KNN"; }

 protected:
  void Count(const ItemSequences& training) override {
    const auto [user_offsets, user_items] = DistinctItems(training);
    const auto [offsets, users] =
        GroupByItem(training.num_items, [&, &user_offsets = user_offsets, &user_items = user_items](const auto& add) {
          for (uint32_t user = 0; user + 1 < user_offsets.size(); ++user) {
            for (uint64_t at = user_offsets[user]; at < user_offsets[user + 1]; ++at) add(user_items[at], user);
          }
        });
    similar_ = {};
    std::vector<uint32_t> together(training.num_items, 0);  // C_ij of the current i
    std::vector<uint32_t> touched;
    std::vector<SparseRows::Entry> row;
    for (uint32_t item = 0; item < training.num_items; ++item) {
      for (uint64_t u = offsets[item]; u < offsets[item + 1]; ++u) {
        for (uint64_t at = user_offsets[users[u]]; at < user_offsets[users[u] + 1]; ++at) {
          if (together[user_items[at]]++ == 0) touched.push_back(user_items[at]);
        }
      }
      const double own = static_cast<double>(offsets[item + 1] - offsets[item]);
      row.clear();
      for (const uint32_t other : touched) {
        const double count = std::exchange(together[other], 0);
        const double others = static_cast<double>(offsets[other + 1] - offsets[other]);
        if (other != item) row.push_back({other, static_cast<float>(count / std::sqrt(own * others))});
      }
      touched.clear();
      Cut(&row);
      similar_.entries.insert(similar_.entries.end(), row.begin(), row.end());
      similar_.offsets.push_back(similar_.entries.size());
    }
  }

  void Collect(absl::Span<const uint32_t> history, std::vector<Evidence>* evidence) const override {
    if (history.size() > static_cast<size_t>(options_.last_items)) history = history.last(options_.last_items);
    std::vector<double> scores(popularity().size(), 0.0);
    double weight = 1.0;
    for (auto item = history.rbegin(); item != history.rend(); ++item) {
      for (const SparseRows::Entry& entry : similar_.row(*item)) {
        if (scores[entry.item] == 0.0) evidence->push_back({entry.item, 0.0});
        scores[entry.item] += weight * entry.value;
      }
      weight *= options_.decay;
    }
    for (Evidence& entry : *evidence) entry.key = scores[entry.item];
  }
  bool background_by_popularity() const override { return false; }

 private:
  static std::pair<std::vector<uint64_t>, std::vector<uint32_t>> DistinctItems(const ItemSequences& sequences) {
    std::vector<uint64_t> offsets{0};
    std::vector<uint32_t> items;
    std::vector<uint32_t> own;
    for (int64_t user = 0; user < sequences.users(); ++user) {
      own.assign(sequences.user(user).begin(), sequences.user(user).end());
      std::sort(own.begin(), own.end());
      items.insert(items.end(), own.begin(), std::unique(own.begin(), own.end()));
      offsets.push_back(items.size());
    }
    return {std::move(offsets), std::move(items)};
  }

  // Leaves the most similar neighbours, ties by index.
  void Cut(std::vector<SparseRows::Entry>* row) const {
    const size_t most = static_cast<size_t>(std::max(options_.max_neighbours, 0));
    if (most == 0 || row->size() <= most) return;
    std::nth_element(row->begin(), row->begin() + most, row->end(), [](const auto& a, const auto& b) {
      return a.value != b.value ? a.value > b.value : a.item < b.item;
    });
    row->resize(most);
  }

  ItemKnnOptions options_;
  SparseRows similar_;  // [i] (j, S_ij)
};

}  // namespace

std::unique_ptr<CountingBaseline> MakePopularity() { return std::make_unique<Popularity>(); }
std::unique_ptr<CountingBaseline> MakeMarkov() { return std::make_unique<Markov>(); }
std::unique_ptr<CountingBaseline> MakeItemKnn(const ItemKnnOptions& options) {
  return std::make_unique<ItemKnn>(options);
}

}  // namespace beamline::data
