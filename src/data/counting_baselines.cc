// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>

#include "data/baselines.h"
#include "data/sparse_rows.h"

namespace beamline::data {
namespace {

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

}  // namespace

std::unique_ptr<CountingBaseline> MakePopularity() { return std::make_unique<Popularity>(); }
std::unique_ptr<CountingBaseline> MakeMarkov() { return std::make_unique<Markov>(); }

}  // namespace beamline::data
