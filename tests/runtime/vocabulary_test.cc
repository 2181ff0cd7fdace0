// SPDX-License-Identifier: Apache-2.0
#include "runtime/vocabulary.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/safetensors.h"

namespace beamline::runtime {
namespace {

constexpr uint64_t kLargest = std::numeric_limits<uint64_t>::max();

std::string TempPath(const std::string& name) { return ::testing::TempDir() + "/" + name; }

TEST(Vocabulary, NumbersIdsFromOneInAscendingOrder) {
  const Vocabulary vocabulary({70, 5, kLargest, 0, 5}, {9, 3});
  EXPECT_THAT(vocabulary.items(), ::testing::ElementsAre(0, 5, 70, kLargest));
  EXPECT_EQ(vocabulary.ItemIndex(0), 1);
  EXPECT_EQ(vocabulary.ItemIndex(70), 3);
  EXPECT_EQ(vocabulary.ItemIndex(kLargest), 4);
  EXPECT_EQ(vocabulary.ItemIndex(6), 0) << "unknown";
  EXPECT_EQ(vocabulary.num_items(), 5) << "known ids and the unknown one";
  EXPECT_EQ(vocabulary.AuthorIndex(9), 2);
  EXPECT_EQ(vocabulary.AuthorIndex(1), 0);
}

TEST(Vocabulary, SavedAndLoadedIsTheSame) {
  const std::string path = TempPath("vocabulary.safetensors");
  for (const Vocabulary& vocabulary : {Vocabulary({1, 2, kLargest}, {7}), Vocabulary({4}, {})}) {
    ASSERT_TRUE(vocabulary.Save(path).ok());
    const absl::StatusOr<Vocabulary> loaded = Vocabulary::Load(path);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->items(), vocabulary.items());
    EXPECT_EQ(loaded->authors(), vocabulary.authors());
  }
}

TEST(Vocabulary, KeepsThePopularityOfItsItems) {
  const std::string path = TempPath("popular.safetensors");
  Vocabulary vocabulary({30, 10, 20}, {});
  EXPECT_EQ(vocabulary.Popularity(10), 0) << "not set";
  vocabulary.SetPopularity({10, 20, 30}, {1, 2, 3});
  ASSERT_TRUE(vocabulary.Save(path).ok());
  const absl::StatusOr<Vocabulary> loaded = Vocabulary::Load(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->Popularity(10), 1);
  EXPECT_EQ(loaded->Popularity(30), 3);
  EXPECT_EQ(loaded->Popularity(11), 0);
  SafetensorsWriter writer;
  const std::vector<uint64_t> ids = {10, 20, 30};
  const std::vector<uint32_t> counts = {1, 2};
  ASSERT_TRUE(writer.Add<uint64_t>("items", {3}, ids).ok());
  ASSERT_TRUE(writer.Add<uint64_t>("authors", {0}, absl::Span<const uint64_t>()).ok());
  ASSERT_TRUE(writer.Add<uint32_t>("item_popularity", {2}, counts).ok());
  ASSERT_TRUE(writer.Write(path).ok());
  EXPECT_THAT(std::string(Vocabulary::Load(path).status().message()), ::testing::HasSubstr("item_popularity"));
}

// The model is older than the log, or has tokens.
TEST(Vocabulary, KeepsThePopularityOfOtherItems) {
  const std::string path = TempPath("counted.safetensors");
  for (Vocabulary vocabulary : {Vocabulary({10, 20}, {7}), Vocabulary::OfTokens({2, -1, 0})}) {
    const std::string ids = vocabulary.Fingerprint();
    vocabulary.SetPopularity({5, 20, 40}, {9, 8, 7});
    EXPECT_EQ(vocabulary.Fingerprint(), ids);
    ASSERT_TRUE(vocabulary.Save(path).ok());
    const absl::StatusOr<Vocabulary> loaded = Vocabulary::Load(path);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->Popularity(5), 9);
    EXPECT_EQ(loaded->Popularity(20), 8);
    EXPECT_EQ(loaded->Popularity(10), 0);
    EXPECT_EQ(loaded->items(), vocabulary.items());
    EXPECT_EQ(loaded->tokens(), vocabulary.tokens());
    EXPECT_EQ(loaded->Fingerprint(), ids);
  }
  EXPECT_NE(Vocabulary({1}, {2}).Fingerprint(), Vocabulary({1, 2}, {}).Fingerprint());
}

absl::Status LoadOf(const SafetensorsWriter& writer) {
  const std::string path = TempPath("bad_vocabulary.safetensors");
  EXPECT_TRUE(writer.Write(path).ok());
  return Vocabulary::Load(path).status();
}

TEST(Vocabulary, RefusesWhatIsNotOne) {
  const std::vector<uint64_t> ascending = {1, 2, 3};
  const std::vector<uint64_t> repeated = {1, 2, 2};
  const std::vector<int64_t> of_other_type = {1, 2, 3};
  {
    SafetensorsWriter writer;
    ASSERT_TRUE(writer.Add<uint64_t>("items", {3}, ascending).ok());
    EXPECT_THAT(std::string(LoadOf(writer).message()), ::testing::HasSubstr("authors")) << "missing";
    ASSERT_TRUE(writer.Add<uint64_t>("authors", {3}, repeated).ok());
    EXPECT_THAT(std::string(LoadOf(writer).message()), ::testing::HasSubstr("'authors' is not strictly ascending"));
  }
  {
    SafetensorsWriter writer;
    ASSERT_TRUE(writer.Add<int64_t>("items", {3}, of_other_type).ok());
    ASSERT_TRUE(writer.Add<uint64_t>("authors", {3, 1}, ascending).ok());
    ASSERT_TRUE(writer.Add<uint64_t>("extra", {3}, ascending).ok());
    const std::string message(LoadOf(writer).message());
    for (const char* name : {"items", "authors", "extra"}) EXPECT_THAT(message, ::testing::HasSubstr(name));
  }
  EXPECT_FALSE(Vocabulary::Parse("not a safetensors file", "here").ok());
  EXPECT_EQ(Vocabulary::Load(TempPath("no-such-file")).status().code(), absl::StatusCode::kNotFound);
}

// Rows of tables are found by them.
TEST(Vocabulary, TokensAreUniqueAndBelowTheNumberOfRows) {
  const std::string path = TempPath("bad_tokens.safetensors");
  const auto load = [&](std::vector<int64_t> tokens) {
    EXPECT_TRUE(Vocabulary::OfTokens(std::move(tokens)).Save(path).ok());
    return Vocabulary::Load(path).status();
  };
  EXPECT_TRUE(load({2, -1, 0}).ok()) << "a row of no token, an id of no row";
  EXPECT_TRUE(load({-1, -1}).ok());
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max(), kLeast = std::numeric_limits<int64_t>::min();
  for (const int64_t token : {kMost, kMost - 1, int64_t{3}, int64_t{-2}, int64_t{-7}, kLeast}) {
    const absl::Status status = load({0, token, 1});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << token;
    EXPECT_THAT(
        std::string(status.message()),
        ::testing::AllOf(::testing::HasSubstr(path),
                         ::testing::HasSubstr("'tokens' row 1: must be -1 or an id below the number of rows, 3"),
                         ::testing::EndsWith(absl::StrCat(", is ", token))));
  }
  EXPECT_THAT(std::string(load({1, -1, 0, -1, 0}).message()), ::testing::HasSubstr("row 4: is 0, as row 2 is"));
  EXPECT_THAT(std::string(load({0, 0}).message()), ::testing::HasSubstr("row 1: is 0, as row 0 is"));
}

}  // namespace
}  // namespace beamline::runtime
