// SPDX-License-Identifier: Apache-2.0
//
// Contents that no builder makes but a file could hold: every structural fault is found before anything is indexed.
#include "catalogue/snapshot_check.h"

#include <functional>
#include <limits>

#include "catalogue/snapshot_builder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

SnapshotContents Good() {
  absl::StatusOr<SnapshotBuilder> builder =
      SnapshotBuilder::Create({.codebook_fingerprint = "book", .level_sizes = {4, 4}, .version = "v1"});
  for (ItemId id = 0; id < 6; ++id) {
    CatalogueItem item;
    item.item = 10 + id;
    item.sid = Sid{static_cast<Code>(id / 4), static_cast<Code>(id / 2)};
    item.attributes.relevance = 1.0f;
    item.attributes.title = "t";
    item.attributes.tags = {{"a", "1"}, {"b", id % 2 == 0 ? "2" : "3"}};
    EXPECT_TRUE(builder->Add(item).ok());
  }
  return (*std::move(*builder).Build())->contents();
}

struct Damage {
  std::string message;
  std::function<void(SnapshotContents&)> apply;
};

TEST(CheckSnapshotContents, FindsEveryFault) {
  ASSERT_TRUE(CheckSnapshotContents(Good()).ok());
  const std::vector<Damage> table = {
      {"version", [](auto& c) { c.version = ""; }},
      {"version", [](auto& c) { c.version = "a\nb"; }},
      {"codebook_fingerprint", [](auto& c) { c.codebook_fingerprint = std::string(257, 'x'); }},
      {"level_sizes", [](auto& c) { c.level_sizes.clear(); }},
      {"trie: has 2 levels, the codebook 3", [](auto& c) { c.level_sizes.push_back(4); }},
      {"trie level 1: node 2 has code 2", [](auto& c) { c.level_sizes[1] = 2; }},
      {"offsets do not ascend", [](auto& c) { c.trie.levels[0].offsets[1] = 0; }},
      {"items: there are 0", [](auto& c) { c.items = ItemColumns(); }},
      {"author: has 7 entries, must have 6", [](auto& c) { c.items.author.push_back(1); }},
      {"duration_ms: has 5", [](auto& c) { c.items.duration_ms.pop_back(); }},
      {"created_ms: has 5", [](auto& c) { c.items.created_ms.pop_back(); }},
      {"relevance: has 5", [](auto& c) { c.items.relevance.pop_back(); }},
      {"position 3: duration_ms: is -5", [](auto& c) { c.items.duration_ms[3] = -5; }},
      {"position 0: relevance", [](auto& c) { c.items.relevance[0] = std::numeric_limits<float>::infinity(); }},
      {"position 2: title: is not UTF-8", [](auto& c) { c.items.titles[2] = '\xff'; }},
      {"title_offsets: has 6 entries, must have 7", [](auto& c) { c.items.title_offsets.pop_back(); }},
      {"title_offsets: begins with 1", [](auto& c) { c.items.title_offsets[0] = 1; }},
      {"title_offsets: descends after entry 3", [](auto& c) { c.items.title_offsets[3] = 99; }},
      {"title_offsets: ends with 7", [](auto& c) { c.items.title_offsets[6] = 7; }},
      {"tag_offsets: descends", [](auto& c) { c.items.tag_offsets[2] = uint64_t{1} << 40; }},
      {"tag_offsets: ends with 11", [](auto& c) { c.items.tag_offsets[6] = 11; }},
      {"leaf_items: has 5 entries, must have 4", [](auto& c) { c.leaf_items.push_back(9); }},
      {"leaf_items: begins with 1", [](auto& c) { c.leaf_items[0] = 1; }},
      {"leaf_items: leaf 1 has no items", [](auto& c) { c.leaf_items[2] = 2; }},
      {"leaf_items: ends with 9", [](auto& c) { c.leaf_items[3] = 9; }},
      {"position 1 is not in order", [](auto& c) { c.items.relevance[1] = 2.0f; }},
      {"position 1 is not in order", [](auto& c) { std::swap(c.items.item_id[0], c.items.item_id[1]); }},
      {"tags: position 0 has tag 9 of 3", [](auto& c) { c.items.tags[1] = 9; }},
      {"tags: those of position 0 do not ascend", [](auto& c) { c.items.tags[1] = c.items.tags[0]; }},
  };
  for (const Damage& damage : table) {
    SnapshotContents bad = Good();
    damage.apply(bad);
    const absl::Status status = CheckSnapshotContents(bad);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << damage.message;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(damage.message));
    EXPECT_FALSE(CatalogueSnapshot::Create(std::move(bad)).ok()) << damage.message;
  }
}

TEST(CheckSnapshotContents, RepeatedIdsAreFoundByTheIndex) {
  SnapshotContents bad = Good();
  bad.items.item_id[5] = bad.items.item_id[0];
  bad.items.relevance[5] = 0;
  EXPECT_TRUE(CheckSnapshotContents(bad).ok());
  EXPECT_THAT(std::string(CatalogueSnapshot::Create(std::move(bad)).status().message()),
              testing::HasSubstr("item 10 occurs more than once"));
}

}  // namespace
}  // namespace beamline::catalogue
