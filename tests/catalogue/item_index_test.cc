// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_index.h"

#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

TEST(ItemIndex, FindsEveryIdAndNoOther) {
  for (size_t count : {0u, 1u, 2u, 3u, 100u, 5000u}) {
    std::vector<ItemId> ids;
    for (size_t i = 0; i < count; ++i) ids.push_back(i * i * 7);  // 0 among them
    if (count > 2) ids[1] = std::numeric_limits<ItemId>::max();
    const absl::StatusOr<ItemIndex> index = ItemIndex::Build(ids);
    ASSERT_TRUE(index.ok());
    std::vector<ItemId> asked;
    for (size_t i = 0; i < count; ++i) {
      EXPECT_EQ(index->Find(ids[i]), i);
      EXPECT_EQ(index->Find(ids[i] ^ 3), std::nullopt);
      asked.push_back(ids[i]);
      asked.push_back(ids[i] ^ 3);
    }
    const std::vector<uint32_t> positions = index->FindAll(asked);
    ASSERT_EQ(positions.size(), asked.size());
    for (size_t i = 0; i < asked.size(); ++i) EXPECT_EQ(positions[i], i % 2 == 0 ? i / 2 : kNoPosition);
  }
  EXPECT_EQ(ItemIndex().Find(1), std::nullopt);
  EXPECT_THAT(ItemIndex().FindAll({1}), testing::ElementsAre(kNoPosition));
}

TEST(ItemIndex, NamesARepeatedId) {
  const std::vector<ItemId> ids = {4, 5, 77, 6, 77};
  EXPECT_THAT(std::string(ItemIndex::Build(ids).status().message()),
              testing::HasSubstr("item 77 occurs more than once"));
}

}  // namespace
}  // namespace beamline::catalogue
