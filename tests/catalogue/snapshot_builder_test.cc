// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot_builder.h"

#include <limits>
#include <random>

#include "base/interrupt.h"
#include "catalogue/random_catalogue.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

using testing::HasSubstr;

SnapshotOptions Options() { return {.codebook_fingerprint = "book", .level_sizes = {4, 300}}; }

CatalogueItem Item(ItemId id) {
  CatalogueItem item;
  item.item = id;
  item.sid = Sid{1, 2};
  return item;
}

TEST(SnapshotBuilder, RefusesBadOptions) {
  const auto message = [](SnapshotOptions options) {
    return std::string(SnapshotBuilder::Create(std::move(options)).status().message());
  };
  EXPECT_THAT(message({.codebook_fingerprint = "", .level_sizes = {4}}), HasSubstr("codebook_fingerprint"));
  EXPECT_THAT(message({.codebook_fingerprint = "a b", .level_sizes = {4}}), HasSubstr("without spaces"));
  EXPECT_THAT(message({.codebook_fingerprint = "a", .level_sizes = {}}), HasSubstr("has 0 levels"));
  EXPECT_THAT(message({.codebook_fingerprint = "a", .level_sizes = std::vector<uint32_t>(9, 4)}),
              HasSubstr("9 levels"));
  EXPECT_THAT(message({.codebook_fingerprint = "a", .level_sizes = {4, 0}}), HasSubstr("level_sizes[1]: is 0"));
  EXPECT_THAT(message({.codebook_fingerprint = "a", .level_sizes = {65537}}), HasSubstr("is 65537"));
  EXPECT_THAT(message({.codebook_fingerprint = "a", .level_sizes = {4}, .version = "v 1"}), HasSubstr("version"));
}

struct BadItem {
  std::string message;
  std::function<void(CatalogueItem&)> damage;
};

TEST(SnapshotBuilder, RefusesBadItemsAndGoesOn) {
  const std::vector<BadItem> bad_items = {
      {"sid: has 1 codes, the codebook has 2 levels", [](CatalogueItem& i) { i.sid = Sid{1}; }},
      {"sid: has 3 codes",
       [](CatalogueItem& i) {
         i.sid = Sid{1, 2, 3};
       }},
      {"sid[0]: code 4 is out of range, the level has 4 codes",
       [](CatalogueItem& i) {
         i.sid = Sid{4, 0};
       }},
      {"sid[1]: code 65837",
       [](CatalogueItem& i) {
         i.sid = Sid{0, 65837};
       }},
      {"duration_ms: is -1", [](CatalogueItem& i) { i.attributes.duration_ms = -1; }},
      {"relevance", [](CatalogueItem& i) { i.attributes.relevance = std::numeric_limits<float>::quiet_NaN(); }},
      {"relevance", [](CatalogueItem& i) { i.attributes.relevance = std::numeric_limits<float>::infinity(); }},
      {"title: is 1048576 bytes long, at most 4096",
       [](CatalogueItem& i) { i.attributes.title = std::string(1 << 20, 'x'); }},
      {"title: is not UTF-8 at byte 1", [](CatalogueItem& i) { i.attributes.title = "a\xff"; }},
      {"title: is not UTF-8", [](CatalogueItem& i) { i.attributes.title = "\xc0\xaf"; }},          // overlong
      {"title: is not UTF-8", [](CatalogueItem& i) { i.attributes.title = "\xed\xa0\x80"; }},      // surrogate
      {"title: is not UTF-8", [](CatalogueItem& i) { i.attributes.title = "\xf4\x90\x80\x80"; }},  // > U+10FFFF
      {"title: is not UTF-8", [](CatalogueItem& i) { i.attributes.title = "\xe2\x82"; }},          // cut off
      {"title: has control character 0x0a at byte 1", [](CatalogueItem& i) { i.attributes.title = "a\nb"; }},
      {"title: has control character 0x00", [](CatalogueItem& i) { i.attributes.title = std::string(1, '\0'); }},
      {"tags: a key is empty",
       [](CatalogueItem& i) {
         i.attributes.tags = {{"", "x"}};
       }},
      {"tag key: is 129 bytes",
       [](CatalogueItem& i) {
         i.attributes.tags = {{std::string(129, 'k'), "x"}};
       }},
      {"value of tag 'k': is 513 bytes",
       [](CatalogueItem& i) {
         i.attributes.tags = {{"k", std::string(513, 'v')}};
       }},
      {"value of tag 'k': has control",
       [](CatalogueItem& i) {
         i.attributes.tags = {{"k", "\x01"}};
       }},
      {"tags: has 257",
       [](CatalogueItem& i) {
         i.attributes.tags.assign(257, {"k", "v"});
       }},
  };
  absl::StatusOr<SnapshotBuilder> builder = SnapshotBuilder::Create(Options());
  ASSERT_TRUE(builder.ok());
  ASSERT_TRUE(builder->Add(Item(1)).ok());
  for (const BadItem& bad : bad_items) {
    CatalogueItem item = Item(77);
    item.attributes.tags = {{"left", "over"}};
    bad.damage(item);
    const absl::Status status = builder->Add(item);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("item 77: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(bad.message));
  }
  CatalogueItem unicode = Item(2);
  unicode.attributes.title = "视频 \xf0\x9f\x8e\xac é";
  EXPECT_TRUE(builder->Add(unicode).ok());
  EXPECT_EQ(builder->size(), 2);
  const auto snapshot = std::move(*builder).Build();
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->num_items(), 2);
  EXPECT_EQ((*snapshot)->tags().size(), 0);  // tags of refused items are gone
  EXPECT_EQ((*snapshot)->GetItem(2)->attributes.title, unicode.attributes.title);
}

TEST(SnapshotBuilder, RefusesAnEmptyCatalogueAndRepeatedIds) {
  EXPECT_THAT(std::string(std::move(*SnapshotBuilder::Create(Options())).Build().status().message()),
              HasSubstr("no items"));
  absl::StatusOr<SnapshotBuilder> builder = SnapshotBuilder::Create(Options());
  for (ItemId id : {0, 5, 0}) ASSERT_TRUE(builder->Add(Item(id)).ok());
  const auto snapshot = std::move(*builder).Build();
  EXPECT_EQ(snapshot.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(snapshot.status().message()), HasSubstr("item 0 occurs more than once"));
}

TEST(SnapshotBuilder, StopsWhenInterrupted) {
  absl::StatusOr<SnapshotBuilder> builder = SnapshotBuilder::Create(Options());
  ASSERT_TRUE(builder->Add(Item(1)).ok());
  SetInterrupted(true);
  const auto snapshot = std::move(*builder).Build();
  SetInterrupted(false);
  EXPECT_EQ(snapshot.status().code(), absl::StatusCode::kCancelled);
}

TEST(SnapshotBuilder, OrderOfAdditionDoesNotMatter) {
  RandomCatalogue random(17);
  const std::shared_ptr<const CatalogueSnapshot> first = random.snapshot;
  std::shuffle(random.items.begin(), random.items.end(), random.random);
  const std::shared_ptr<const CatalogueSnapshot> second = random.Build();
  EXPECT_EQ(first->version(), second->version());  // made from all contents
  random.items[0].attributes.author += 1;
  EXPECT_NE(random.Build()->version(), first->version());
}

TEST(SnapshotBuilder, KeepsAGivenVersion) {
  SnapshotOptions options = Options();
  options.version = "2024-05-01";
  absl::StatusOr<SnapshotBuilder> builder = SnapshotBuilder::Create(options);
  ASSERT_TRUE(builder->Add(Item(1)).ok());
  EXPECT_EQ((*std::move(*builder).Build())->version(), "2024-05-01");
}

}  // namespace
}  // namespace beamline::catalogue
