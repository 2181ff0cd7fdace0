// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

#include "base/interrupt.h"
#include "data/baselines.h"
#include "data/sparse_rows.h"

namespace beamline::data {
namespace {

// Items of each user, ascending and each once.
struct UserItems {
  std::vector<uint64_t> offsets{0};  // [users + 1]
  std::vector<uint32_t> items;

  absl::Span<const uint32_t> user(uint32_t index) const {
    return absl::MakeConstSpan(items).subspan(offsets[index], offsets[index + 1] - offsets[index]);
  }
};

UserItems DistinctItems(const ItemSequences& sequences) {
  UserItems distinct;
  std::vector<uint32_t> own;
  for (int64_t user = 0; user < sequences.users(); ++user) {
    own.assign(sequences.user(user).begin(), sequences.user(user).end());
    std::sort(own.begin(), own.end());
    distinct.items.insert(distinct.items.end(), own.begin(), std::unique(own.begin(), own.end()));
    distinct.offsets.push_back(distinct.items.size());
  }
  return distinct;
}

// An item's row of similarities is the join of its users' items. Rows of the items that most users have are kept as far
// as the memory goes; a row of another item is joined when it is asked for.
class ItemKnn final : public CountingBaseline {
 public:
  explicit ItemKnn(const ItemKnnOptions& options) : options_(options) {}
  std::string_view name() const override { return "item-KNN"; }

 protected:
  void Count(const ItemSequences& training) override {
    of_user_ = DistinctItems(training);
    const uint32_t users = static_cast<uint32_t>(of_user_.offsets.size() - 1);
    std::tie(offsets_, users_) = GroupByItem(training.num_items, [&](const auto& add) {
      for (uint32_t user = 0; user < users; ++user) {
        for (const uint32_t item : of_user_.user(user)) add(item, user);
      }
    });
    KeepRows(training.num_items);
  }

  void Collect(absl::Span<const uint32_t> history, std::vector<Evidence>* evidence) const override {
    if (history.size() > static_cast<size_t>(options_.last_items)) history = history.last(options_.last_items);
    std::vector<double> scores(popularity().size(), 0.0);
    Join join;
    double weight = 1.0;
    for (auto item = history.rbegin(); item != history.rend(); ++item) {
      const absl::Span<const SparseRows::Entry> row =
          kept_at_[*item] != kNotKept ? kept_.row(kept_at_[*item]) : JoinRow(*item, join);
      for (const SparseRows::Entry& entry : row) {
        if (scores[entry.item] == 0.0) evidence->push_back({entry.item, 0.0});
        scores[entry.item] += weight * entry.value;
      }
      weight *= options_.decay;
    }
    for (Evidence& entry : *evidence) entry.key = scores[entry.item];
  }
  bool background_by_popularity() const override { return false; }

 private:
  static constexpr uint32_t kNotKept = UINT32_MAX;

  struct Join {
    std::vector<uint32_t> together;  // C_ij of the current i; zeros between rows
    std::vector<uint32_t> touched;
    std::vector<SparseRows::Entry> row;
  };

  uint64_t users(uint32_t item) const { return offsets_[item + 1] - offsets_[item]; }

  absl::Span<const SparseRows::Entry> JoinRow(uint32_t item, Join& join) const {
    join.together.resize(popularity().size());
    join.touched.clear();
    join.row.clear();
    for (uint64_t at = offsets_[item]; at < offsets_[item + 1]; ++at) {
      for (const uint32_t other : of_user_.user(users_[at])) {
        if (join.together[other]++ == 0) join.touched.push_back(other);
      }
    }
    const double own = static_cast<double>(users(item));
    for (const uint32_t other : join.touched) {
      const double count = std::exchange(join.together[other], 0), others = static_cast<double>(users(other));
      if (other != item) join.row.push_back({other, static_cast<float>(count / std::sqrt(own * others))});
    }
    return join.row;
  }

  void KeepRows(uint32_t num_items) {
    kept_ = {};
    kept_at_.assign(num_items, kNotKept);
    std::vector<uint32_t> order(num_items);
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return users(a) != users(b) ? users(a) > users(b) : a < b; });
    Join join;
    for (const uint32_t item : order) {
      if (users(item) < 2 || Interrupted()) return;  // one user's items are the row, nearly
      const absl::Span<const SparseRows::Entry> row = JoinRow(item, join);
      if (kept_.entries.size() + row.size() > options_.kept_entries) return;
      kept_at_[item] = static_cast<uint32_t>(kept_.offsets.size() - 1);
      kept_.entries.insert(kept_.entries.end(), row.begin(), row.end());
      kept_.offsets.push_back(kept_.entries.size());
    }
  }

  ItemKnnOptions options_;
  UserItems of_user_;
  std::vector<uint64_t> offsets_;  // [items + 1], users of each item
  std::vector<uint32_t> users_;
  SparseRows kept_;                // [kept items] (j, S_ij)
  std::vector<uint32_t> kept_at_;  // [items], row of kept_ or kNotKept
};

}  // namespace

std::unique_ptr<CountingBaseline> MakeItemKnn(const ItemKnnOptions& options) {
  return std::make_unique<ItemKnn>(options);
}

}  // namespace beamline::data
