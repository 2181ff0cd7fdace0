// SPDX-License-Identifier: Apache-2.0
//
// Small random catalogues for property tests: few codes, so that SIDs collide and prefixes are shared, and few tag
// values, so that rules bite. The items are kept as plain values for brute force.
#pragma once

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "catalogue/snapshot_builder.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {

struct RandomCatalogue {
  explicit RandomCatalogue(uint32_t seed, int max_items = 60) : random(seed) {
    const int levels = 1 + static_cast<int>(random() % 4);
    for (int level = 0; level < levels; ++level) level_sizes.push_back(1 + random() % 5);
    const int count = 1 + static_cast<int>(random() % max_items);
    for (int i = 0; i < count; ++i) items.push_back(RandomItem(static_cast<ItemId>(i) * 1'000'003 % 7'919));
    snapshot = Build();
  }

  CatalogueItem RandomItem(ItemId id) {
    CatalogueItem item;
    item.item = id;
    for (uint32_t size : level_sizes) item.sid.push_back(random() % size);
    item.attributes.author = random() % 10;
    item.attributes.duration_ms = random() % 1000;
    item.attributes.created_ms = static_cast<int64_t>(random() % 1000) - 500;
    item.attributes.relevance = static_cast<float>(random() % 4) - 1.0f;
    item.attributes.title = absl::StrCat("title ", random() % 100);
    for (const char* key : {"region", "age", "kind"}) {
      for (uint32_t n = random() % 3; n > 0; --n) {
        item.attributes.tags.emplace_back(key, std::string(1, static_cast<char>('a' + random() % 3)));
      }
    }
    return item;
  }

  std::shared_ptr<const CatalogueSnapshot> Build() {
    absl::StatusOr<SnapshotBuilder> builder =
        SnapshotBuilder::Create({.codebook_fingerprint = "book", .level_sizes = level_sizes});
    EXPECT_TRUE(builder.ok()) << builder.status();
    for (const CatalogueItem& item : items) EXPECT_TRUE(builder->Add(item).ok());
    absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> built = std::move(*builder).Build();
    EXPECT_TRUE(built.ok()) << built.status();
    return *built;
  }

  // Items in the order a snapshot gives them positions.
  std::vector<CatalogueItem> InOrder() const {
    std::vector<CatalogueItem> sorted = items;
    std::sort(sorted.begin(), sorted.end(), [](const CatalogueItem& a, const CatalogueItem& b) {
      if (a.sid != b.sid) return a.sid < b.sid;
      if (a.attributes.relevance != b.attributes.relevance) return a.attributes.relevance > b.attributes.relevance;
      return a.item < b.item;
    });
    return sorted;
  }

  std::mt19937 random;
  std::vector<uint32_t> level_sizes;
  std::vector<CatalogueItem> items;
  std::shared_ptr<const CatalogueSnapshot> snapshot;
};

}  // namespace beamline::catalogue
