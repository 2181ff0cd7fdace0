// SPDX-License-Identifier: Apache-2.0
#include "catalogue/generate.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::catalogue {
namespace {

TEST(GenerateCatalogue, IsUniformAndRepeatable) {
  const GenerateOptions options{.items = 20'000, .levels = 3, .codes = 64, .seed = 5};
  const auto snapshot = GenerateCatalogue(options);
  ASSERT_TRUE(snapshot.ok()) << snapshot.status();
  EXPECT_EQ((*snapshot)->num_items(), 20'000);
  EXPECT_EQ((*snapshot)->num_nodes(0), 64);
  EXPECT_NEAR((*snapshot)->num_nodes(1), 4096 - 31, 25);  // 4096 * exp(-20000 / 4096) = 31 prefixes are missing
  std::map<Code, int> per_code;
  for (ItemId item = 1; item <= 20'000; ++item) ++per_code[(*(*snapshot)->Encode(item))[2]];
  for (const auto& [code, count] : per_code) EXPECT_NEAR(count, 20'000 / 64.0, 90) << code;  // 5 standard deviations
  EXPECT_EQ((*GenerateCatalogue(options))->version(), (*snapshot)->version());
  GenerateOptions other = options;
  other.seed = 6;
  EXPECT_NE((*GenerateCatalogue(other))->version(), (*snapshot)->version());
}

TEST(GenerateCatalogue, RefusesOptionsOutOfRange) {
  const auto message = [](GenerateOptions options) {
    return std::string(GenerateCatalogue(options).status().message());
  };
  EXPECT_THAT(message({.items = 0}), testing::HasSubstr("items: is 0"));
  EXPECT_THAT(message({.items = 4'000'000'000}), testing::HasSubstr("4000000000 items need about 560.00 GB"));
  EXPECT_THAT(message({.items = 1, .levels = 9}), testing::HasSubstr("levels: is 9"));
  EXPECT_THAT(message({.items = 1, .levels = 0}), testing::HasSubstr("levels: is 0"));
  EXPECT_THAT(message({.items = 1, .codes = 65537}), testing::HasSubstr("is 65537"));
  EXPECT_THAT(message({.items = 1, .codes = 0}), testing::HasSubstr("is 0"));
}

// The design's goal for search arrays, at a tenth of its size: 8 bytes a SID, here mostly distinct in their first two
// codes.
TEST(GenerateCatalogue, SearchArraysAreSmall) {
  const auto snapshot = GenerateCatalogue({.items = 100'000, .levels = 3, .codes = 8192});
  EXPECT_LT((*snapshot)->contents().trie.bytes(), 900'000);
}

}  // namespace
}  // namespace beamline::catalogue
