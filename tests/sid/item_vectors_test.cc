// SPDX-License-Identifier: Apache-2.0
#include "sid/item_vectors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/safetensors.h"
#include "sid/sid_test_util.h"
#include "testing/write_npy.h"

namespace beamline::sid {
namespace {

using ::testing::HasSubstr;

TEST(ItemVectors, RoundTrip) {
  const TempFolder folder;
  const ItemVectors vectors{{7, 3, ~uint64_t{0}}, ClusteredVectors(3, 4, 2, 1.0f, 1)};
  ASSERT_TRUE(WriteItemVectors(folder.file("v.safetensors"), vectors).ok());
  const auto read = ReadItemVectors({folder.file("v.safetensors"), "", ""});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->items, vectors.items);
  EXPECT_EQ(read->vectors.values, vectors.vectors.values);
}

TEST(ItemVectors, RowsAreIdsUnlessAFileSaysOtherwise) {
  const TempFolder folder;
  ASSERT_TRUE(beamline::testing::WriteNpy(folder.file("v.npy"), ClusteredVectors(3, 4, 2, 1.0f, 1)));
  EXPECT_EQ(ReadItemVectors({folder.file("v.npy"), "", ""})->items, (std::vector<ItemId>{0, 1, 2}));
  const std::string ids = folder.Write("ids.txt", "10\n18446744073709551615\n0\n");
  EXPECT_EQ(ReadItemVectors({folder.file("v.npy"), "", ids})->items, (std::vector<ItemId>{10, ~uint64_t{0}, 0}));
}

TEST(ItemVectors, RefusesBadIds) {
  const TempFolder folder;
  ASSERT_TRUE(beamline::testing::WriteNpy(folder.file("v.npy"), ClusteredVectors(3, 4, 2, 1.0f, 1)));
  const auto message = [&](const std::string& ids) {
    return std::string(ReadItemVectors({folder.file("v.npy"), "", folder.Write("ids.txt", ids)}).status().message());
  };
  EXPECT_THAT(message("1\n2\n"), HasSubstr("2 item ids for 3 vectors"));
  EXPECT_THAT(message("1\n2\n3\n4\n"), HasSubstr("ids.txt:4"));
  EXPECT_THAT(message("1\n2\n1\n"), HasSubstr("item 1 is there twice"));
  EXPECT_THAT(message("1\n\n3\n"), HasSubstr("ids.txt:2"));
  EXPECT_THAT(message("1\nx\n3\n"), HasSubstr("ids.txt:2"));
  EXPECT_THAT(message("1\n-2\n3\n"), HasSubstr("ids.txt:2"));
  EXPECT_THAT(message("1\n18446744073709551616\n3\n"), HasSubstr("ids.txt:2"));
}

TEST(ItemVectors, ChoosesTheTensorOrAsks) {
  const TempFolder folder;
  const std::vector<float> values = {1, 2, 3, 4};
  const std::vector<int64_t> ids = {5, -6};
  SafetensorsWriter one;
  ASSERT_TRUE(one.Add<float>("emb", {2, 2}, values).ok());
  ASSERT_TRUE(one.Write(folder.file("one")).ok());
  EXPECT_EQ(ReadItemVectors({folder.file("one"), "", ""})->vectors.values, values);
  ASSERT_TRUE(one.Add<float>("other", {2, 2}, values).ok());
  ASSERT_TRUE(one.Write(folder.file("two")).ok());
  EXPECT_THAT(std::string(ReadItemVectors({folder.file("two"), "", ""}).status().message()), HasSubstr("name one"));
  EXPECT_TRUE(ReadItemVectors({folder.file("two"), "other", ""}).ok());
  EXPECT_FALSE(ReadItemVectors({folder.file("two"), "none", ""}).ok());
  SafetensorsWriter negative;
  ASSERT_TRUE(negative.Add<float>("vectors", {2, 2}, values).ok());
  ASSERT_TRUE(negative.Add<int64_t>("item_ids", {2}, ids).ok());
  ASSERT_TRUE(negative.Write(folder.file("negative")).ok());
  EXPECT_THAT(std::string(ReadItemVectors({folder.file("negative"), "", ""}).status().message()), HasSubstr("is -6"));
}

TEST(ItemVectors, RefusesHugeValues) {
  const TempFolder folder;
  FloatMatrix matrix(2, 2);
  matrix.row(1)[0] = 1e25f;
  ASSERT_TRUE(beamline::testing::WriteNpy(folder.file("v.npy"), matrix));
  EXPECT_THAT(std::string(ReadItemVectors({folder.file("v.npy"), "", ""}).status().message()), HasSubstr("vector 1"));
}

}  // namespace
}  // namespace beamline::sid
