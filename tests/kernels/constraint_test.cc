// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/constraint.h"

#include <algorithm>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "beamline/kernels/candidate_order.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::kernels {
namespace {

TEST(LowerBound, EqualsTheStandardOne) {
  std::mt19937 random(3);
  for (uint32_t count : {0u, 1u, 2u, 3u, 17u, 64u}) {
    std::vector<uint32_t> sorted(count);
    for (uint32_t& value : sorted) value = random() % 40;
    std::sort(sorted.begin(), sorted.end());
    for (uint32_t value = 0; value < 45; ++value) {
      EXPECT_EQ(LowerBound(sorted.data(), count, value),
                std::lower_bound(sorted.begin(), sorted.end(), value) - sorted.begin());
    }
  }
}

TEST(IsAlive, NeedsTheRuleBitAndNoDeadEntry) {
  std::mt19937 random(4);
  for (int trial = 0; trial < 200; ++trial) {
    std::set<uint32_t> dead;
    std::vector<uint64_t> rule(3);
    for (uint64_t& word : rule) word = (uint64_t{random()} << 32) | random();
    for (int i = 0; i < trial % 20; ++i) dead.insert(random() % 192);
    const std::vector<uint32_t> list(dead.begin(), dead.end());
    const bool with_rule = trial % 2 == 0;
    const EligibilityLevelView view{with_rule ? rule.data() : nullptr, list.data(), static_cast<uint32_t>(list.size())};
    const NodeRange range{static_cast<uint32_t>(random() % 100), 100 + static_cast<uint32_t>(random() % 92)};
    const DeadSlice slice = DeadAmong(view, range);
    for (uint32_t node = range.begin; node < range.end; ++node) {
      const bool passes = !with_rule || ((rule[node / 64] >> (node % 64)) & 1) != 0;
      EXPECT_EQ(IsAlive(view, slice, node), passes && !dead.contains(node));
    }
  }
}

TEST(Children, OfTheRootAndOfANode) {
  const std::vector<uint16_t> codes0 = {3, 9};
  const std::vector<uint16_t> codes1 = {1, 2, 0};
  const std::vector<uint32_t> offsets0 = {0, 2, 3};
  TrieView trie;
  trie.levels = 2;
  trie.level[0] = {codes0.data(), offsets0.data(), 2};
  trie.level[1] = {codes1.data(), nullptr, 3};
  EXPECT_EQ(Children(trie, 0, 0).end, 2u);
  EXPECT_EQ(Children(trie, 1, 0).begin, 0u);
  EXPECT_EQ(Children(trie, 1, 0).end, 2u);
  EXPECT_EQ(Children(trie, 1, 1).begin, 2u);
  EXPECT_EQ(Children(trie, 1, 1).end, 3u);

  ConstraintView constraint;
  constraint.snapshot_trie = trie;
  EXPECT_EQ(SnapshotNode(constraint, 0, 1), 1u);
  const std::vector<uint32_t> map = {1};
  constraint.snapshot_node[0] = map.data();
  EXPECT_EQ(SnapshotNode(constraint, 0, 0), 1u);
  EXPECT_EQ(SnapshotChildren(constraint, 1, 0).begin, 2u);
  EXPECT_EQ(SnapshotChildren(constraint, 0, 0).end, 2u);
}

TEST(OrderKey, AscendsAsScoresDescendThenByNode) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> descending = {inf, 3e38f, 1.0f, 1e-40f, 0.0f, -1e-40f, -0.5f, -1.0f, -3e38f, -inf};
  for (size_t i = 1; i < descending.size(); ++i) {
    EXPECT_LT(ScoreKey(descending[i - 1]), ScoreKey(descending[i])) << i;
    EXPECT_LT(OrderKey(descending[i - 1], 9), OrderKey(descending[i], 0)) << i;
  }
  EXPECT_EQ(ScoreKey(-0.0f), ScoreKey(0.0f));
  EXPECT_LT(OrderKey(-0.0f, 1), OrderKey(0.0f, 2));
  EXPECT_LT(OrderKey(0.0f, 1), OrderKey(-0.0f, 2));
}

}  // namespace
}  // namespace beamline::kernels
