// SPDX-License-Identifier: Apache-2.0
#include "catalogue/rank_bitmap.h"

#include <random>

#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

TEST(RankBitmap, CountsAsALoopDoes) {
  std::mt19937 random(1);
  for (uint32_t size : {0u, 1u, 63u, 64u, 65u, 511u, 512u, 513u, 1024u, 5000u}) {
    for (uint32_t one_in : {1u, 2u, 50u}) {
      RankBitmap bitmap(size);
      std::vector<bool> expected(size);
      for (uint32_t at = 0; at < size; ++at) {
        if (random() % one_in != 0) continue;
        bitmap.Set(at);
        expected[at] = true;
      }
      bitmap.BuildRanks();
      uint32_t rank = 0;
      for (uint32_t at = 0; at < size; ++at) {
        ASSERT_EQ(bitmap.Rank(at), rank) << size << " " << at;
        ASSERT_EQ(bitmap.Get(at), expected[at]);
        rank += expected[at];
      }
      EXPECT_EQ(bitmap.Rank(size), rank);
      EXPECT_EQ(bitmap.ones(), rank);
      EXPECT_EQ(bitmap.Count(size / 3, size), rank - bitmap.Rank(size / 3));
    }
  }
}

}  // namespace
}  // namespace beamline::catalogue
