// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_index.h"

#include <ctime>
#include <limits>
#include <vector>

#include "absl/time/time.h"
#include "base/digest.h"
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

// The inverse of what StableMix64 does.
uint64_t Unmix(uint64_t mixed) {
  const auto unshift = [](uint64_t value, int by) {
    uint64_t out = value;
    for (int i = by; i < 64; i += by) out = value ^ (out >> by);
    return out;
  };
  mixed = unshift(mixed, 31) * 0x319642B2D24D8EC3ull;
  mixed = unshift(mixed, 27) * 0x96DE1B173F119089ull;
  return unshift(mixed, 30) - 0x9E3779B97F4A7C15ull;
}

// Item ids are a stranger's: those that would share a slot of a known hash take no longer than others.
TEST(ItemIndex, ChosenIdsDoNotCollide) {
  ASSERT_EQ(StableMix64(Unmix(12345)), 12345u);
  std::vector<ItemId> ids;
  for (uint64_t i = 0; i < 100'000; ++i) ids.push_back(Unmix(i << 40));
  const auto cpu_time = [] { return absl::Seconds(double(std::clock()) / CLOCKS_PER_SEC); };
  const absl::Duration start = cpu_time();
  const absl::StatusOr<ItemIndex> index = ItemIndex::Build(ids);
  ASSERT_TRUE(index.ok());
  EXPECT_EQ(index->Find(ids.back()), ids.size() - 1);
  EXPECT_LT(cpu_time() - start, absl::Milliseconds(500)) << "milliseconds; seconds where all share a slot";
}

TEST(ItemIndex, NamesARepeatedId) {
  const std::vector<ItemId> ids = {4, 5, 77, 6, 77};
  EXPECT_THAT(std::string(ItemIndex::Build(ids).status().message()),
              testing::HasSubstr("item 77 occurs more than once"));
}

}  // namespace
}  // namespace beamline::catalogue
