// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_trie.h"

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "beamline/kernels/constraint.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

ItemTrie Build(const std::vector<Sid>& sorted, int levels) {
  return ItemTrie::FromSorted(levels, sorted.size(), [&](uint64_t i) { return SidKey::FromSid(sorted[i]); });
}

TEST(SidKey, OrdersAsSidsDo) {
  std::mt19937 random(1);
  for (int trial = 0; trial < 2000; ++trial) {
    Sid a, b;
    for (int level = 0; level < kMaxLevels; ++level) {
      a.push_back(random() % 3 == 0 ? 65535 : random() % 2);
      b.push_back(random() % 3 == 0 ? 65535 : random() % 2);
    }
    EXPECT_EQ(SidKey::FromSid(a) <=> SidKey::FromSid(b), a <=> b);
    for (int level = 0; level < kMaxLevels; ++level) EXPECT_EQ(SidKey::FromSid(a).code(level), a[level]);
  }
}

TEST(ItemTrie, LayoutOfASmallOne) {
  const ItemTrie trie = Build({{0, 5, 1}, {0, 5, 3}, {0, 5, 3}, {2, 0, 9}, {2, 7, 0}}, 3);
  EXPECT_THAT(trie.levels[0].codes, ElementsAre(0, 2));
  EXPECT_THAT(trie.levels[0].offsets, ElementsAre(0, 1, 3));
  EXPECT_THAT(trie.levels[1].codes, ElementsAre(5, 0, 7));
  EXPECT_THAT(trie.levels[1].offsets, ElementsAre(0, 2, 3, 4));
  EXPECT_THAT(trie.levels[2].codes, ElementsAre(1, 3, 9, 0));
  EXPECT_TRUE(trie.levels[2].offsets.empty());
  EXPECT_EQ(trie.bytes(), 9 * 2 + 7 * 4);
  EXPECT_TRUE(trie.Check({3, 8, 10}).ok());
}

TEST(ItemTrie, HoldsExactlyItsSids) {
  std::mt19937 random(2);
  for (int trial = 0; trial < 300; ++trial) {
    const int levels = 1 + trial % 8;
    std::set<Sid> sids;
    for (uint32_t i = 0; i <= random() % 50; ++i) {
      Sid sid;
      for (int level = 0; level < levels; ++level) sid.push_back(random() % 3);
      sids.insert(sid);
    }
    const std::vector<Sid> sorted(sids.begin(), sids.end());
    const ItemTrie trie = Build(sorted, levels);
    ASSERT_TRUE(trie.Check(std::vector<uint32_t>(levels, 3)).ok());
    ASSERT_EQ(trie.num_leaves(), sorted.size());
    for (uint32_t leaf = 0; leaf < sorted.size(); ++leaf) {
      EXPECT_EQ(trie.Find(sorted[leaf]), leaf);
      for (int level = 0; level < levels; ++level) {
        Sid prefix(sorted[leaf].codes().first(level + 1));
        EXPECT_TRUE(trie.Find(prefix).has_value());
        Sid other(sorted[leaf].codes().first(level));
        other.push_back(9);
        EXPECT_FALSE(trie.Find(other).has_value());
      }
    }
    EXPECT_FALSE(trie.Find(Sid()).has_value());
    // Parents, by the marks of interval starts, are those whose children they are.
    for (int level = 1; level < levels; ++level) {
      const RankBitmap starts = IntervalStarts(trie.levels[level - 1].offsets);
      for (uint32_t parent = 0; parent < trie.num_nodes(level - 1); ++parent) {
        const kernels::NodeRange range = kernels::Children(trie.view(), level, parent);
        for (uint32_t node = range.begin; node < range.end; ++node) EXPECT_EQ(IntervalOf(starts, node), parent);
      }
    }
  }
}

TEST(ItemTrie, CheckFindsEveryStructuralFault) {
  const ItemTrie good = Build({{0, 1}, {0, 2}, {1, 0}, {3, 3}}, 2);
  const std::vector<uint32_t> sizes = {4, 4};
  ASSERT_TRUE(good.Check(sizes).ok());
  const auto message = [&](auto&& damage) {
    ItemTrie bad = good;
    damage(bad);
    return std::string(bad.Check(sizes).message());
  };
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[0].offsets.pop_back(); }), HasSubstr("3 offsets, must be 4"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[0].offsets[0] = 1; }), HasSubstr("first offset is 1"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[0].offsets[1] = 9; }), HasSubstr("offsets do not ascend at node 1"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[0].offsets[2] = 2; }), HasSubstr("offsets do not ascend at node 1"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[0].offsets[3] = 5; }), HasSubstr("last offset is 5"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[0].codes[1] = 0; }),
              HasSubstr("level 0: codes do not ascend at node 1"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[1].codes[1] = 1; }),
              HasSubstr("level 1: codes do not ascend at node 1"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[1].codes[3] = 4; }), HasSubstr("node 3 has code 4"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels[1].codes.clear(); }), HasSubstr("level 1: has 0 nodes"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels.pop_back(); }), HasSubstr("has 1 levels, the codebook 2"));
  EXPECT_THAT(message([](ItemTrie& t) { t.levels.clear(); }), HasSubstr("has 0 levels"));
}

}  // namespace
}  // namespace beamline::catalogue
