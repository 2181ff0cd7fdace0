// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot.h"

#include <map>
#include <set>

#include "catalogue/random_catalogue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

std::vector<std::pair<std::string, std::string>> SortedUnique(std::vector<std::pair<std::string, std::string>> tags) {
  std::sort(tags.begin(), tags.end());
  tags.erase(std::unique(tags.begin(), tags.end()), tags.end());
  return tags;
}

TEST(CatalogueSnapshot, ServesWhatWasAdded) {
  for (uint32_t seed = 0; seed < 200; ++seed) {
    SCOPED_TRACE(seed);
    const RandomCatalogue random(seed);
    const CatalogueSnapshot& snapshot = *random.snapshot;
    const std::vector<CatalogueItem> sorted = random.InOrder();
    ASSERT_EQ(snapshot.num_items(), sorted.size());
    std::map<Sid, std::vector<ItemId>> by_sid;
    for (uint32_t position = 0; position < sorted.size(); ++position) {
      const CatalogueItem& expected = sorted[position];
      by_sid[expected.sid].push_back(expected.item);
      EXPECT_EQ(snapshot.item_id(position), expected.item);
      EXPECT_EQ(snapshot.FindPosition(expected.item), position);
      EXPECT_EQ(snapshot.Encode(expected.item), expected.sid);
      EXPECT_EQ(snapshot.SidOfLeaf(snapshot.LeafOf(position)), expected.sid);
      EXPECT_EQ(snapshot.author(position), expected.attributes.author);
      EXPECT_EQ(snapshot.title(position), expected.attributes.title);
      const std::optional<CatalogueItem> item = snapshot.GetItem(expected.item);
      ASSERT_TRUE(item.has_value());
      EXPECT_EQ(item->sid, expected.sid);
      EXPECT_EQ(item->attributes.author, expected.attributes.author);
      EXPECT_EQ(item->attributes.duration_ms, expected.attributes.duration_ms);
      EXPECT_EQ(item->attributes.created_ms, expected.attributes.created_ms);
      EXPECT_EQ(item->attributes.relevance, expected.attributes.relevance);
      EXPECT_EQ(item->attributes.title, expected.attributes.title);
      EXPECT_EQ(item->attributes.tags, SortedUnique(expected.attributes.tags));
    }
    ASSERT_EQ(snapshot.num_sids(), by_sid.size());
    for (const auto& [sid, ids] : by_sid) EXPECT_EQ(snapshot.Resolve(sid), ids);
  }
}

TEST(CatalogueSnapshot, NodesAreIntervalsOfPositionsAtEveryLevel) {
  for (uint32_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(seed);
    const RandomCatalogue random(seed);
    const CatalogueSnapshot& snapshot = *random.snapshot;
    const std::vector<CatalogueItem> sorted = random.InOrder();
    for (int level = 0; level < snapshot.levels(); ++level) {
      std::map<Sid, ItemRange> expected;
      for (uint32_t position = 0; position < sorted.size(); ++position) {
        const Sid prefix(sorted[position].sid.codes().first(level + 1));
        expected.try_emplace(prefix, ItemRange{position, position}).first->second.end = position + 1;
      }
      ASSERT_EQ(snapshot.num_nodes(level), expected.size());
      uint32_t node = 0;
      for (const auto& [prefix, range] : expected) {
        EXPECT_EQ(snapshot.NodeItems(level, node).begin, range.begin);
        EXPECT_EQ(snapshot.NodeItems(level, node).end, range.end);
        ++node;
      }
    }
  }
}

TEST(CatalogueSnapshot, UnknownItemsAndSids) {
  const RandomCatalogue random(3);
  const CatalogueSnapshot& snapshot = *random.snapshot;
  EXPECT_EQ(snapshot.Encode(999'999), std::nullopt);
  EXPECT_FALSE(snapshot.GetItem(999'999).has_value());
  EXPECT_TRUE(snapshot.Resolve(Sid()).empty());
  Sid too_short(random.items[0].sid.codes().first(random.items[0].sid.levels() - 1));
  EXPECT_TRUE(snapshot.Resolve(too_short).empty());
  std::vector<Code> codes(random.items[0].sid.codes().begin(), random.items[0].sid.codes().end());
  codes.back() += 65536;  // must not wrap round to the code that exists
  EXPECT_TRUE(snapshot.Resolve(Sid(codes)).empty());
}

}  // namespace
}  // namespace beamline::catalogue
