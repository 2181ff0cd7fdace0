// SPDX-License-Identifier: Apache-2.0
#include "sid/codebook.h"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/digest.h"
#include "base/safetensors.h"
#include "sid/sid_test_util.h"

namespace beamline::sid {
namespace {

using ::testing::HasSubstr;

Codebook Make(std::vector<int64_t> sizes, int64_t dim, uint64_t seed) {
  std::vector<FloatMatrix> levels;
  for (const int64_t size : sizes) levels.push_back(ClusteredVectors(size, dim, 4, 1.0f, seed++));
  return *Codebook::FromCentroids("test", std::move(levels));
}

const std::string kDigest(64, 'a');

TEST(Codebook, EncodeIsTheGreedyResidualSearch) {
  const Codebook codebook = Make({7, 33, 20}, 6, 1);
  const FloatMatrix vectors = ClusteredVectors(2500, 6, 9, 1.0f, 9);
  const std::vector<Sid> sids = *codebook.Encode(vectors);
  for (int64_t i = 0; i < vectors.rows; ++i) {
    std::vector<double> residual(vectors.row(i), vectors.row(i) + 6);
    for (int level = 0; level < 3; ++level) {
      const FloatMatrix& centroids = codebook.centroids(level);
      const auto distance = [&](int64_t code) {
        double sum = 0;
        for (int d = 0; d < 6; ++d)
          sum += (residual[d] - centroids.row(code)[d]) * (residual[d] - centroids.row(code)[d]);
        return sum;
      };
      const double chosen = distance(sids[i][level]);
      for (int64_t code = 0; code < centroids.rows; ++code) ASSERT_LE(chosen, distance(code) + 1e-5);
      for (int d = 0; d < 6; ++d) residual[d] -= centroids.row(sids[i][level])[d];
    }
    const FloatMatrix decoded = *codebook.Decode({sids[i]});
    for (int d = 0; d < 6; ++d) EXPECT_NEAR(vectors.row(i)[d] - decoded.row(0)[d], residual[d], 1e-5);
  }
  ThreadPool pool(3);
  EXPECT_EQ(*codebook.Encode(vectors, &pool), sids);
}

TEST(Codebook, SaveAndLoadKeepEverything) {
  const TempFolder folder;
  for (const Codebook& codebook : {Make({1}, 1, 3), Make({4, 300, 2, 1, 9, 8, 7, 6}, 5, 4),
                                   *Codebook::Foreign("letter", {256, 256, 100}, kDigest)}) {
    ASSERT_TRUE(codebook.Save(folder.file("c.safetensors")).ok());
    const auto loaded = Codebook::Load(folder.file("c.safetensors"));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(loaded->name(), codebook.name());
    EXPECT_EQ(loaded->level_sizes(), codebook.level_sizes());
    EXPECT_EQ(loaded->fingerprint(), codebook.fingerprint());
    EXPECT_EQ(loaded->has_centroids(), codebook.has_centroids());
    EXPECT_EQ(loaded->dim(), codebook.dim());
    for (int level = 0; codebook.has_centroids() && level < codebook.levels(); ++level) {
      EXPECT_EQ(loaded->centroids(level).values, codebook.centroids(level).values);
    }
  }
}

TEST(Codebook, FingerprintTellsCodebooksApart) {
  const Codebook base = Make({4, 4}, 2, 1);
  EXPECT_EQ(base.fingerprint().size(), 64u);
  EXPECT_EQ(base.fingerprint(), Make({4, 4}, 2, 1).fingerprint());
  EXPECT_NE(base.fingerprint(), Make({4, 4}, 2, 2).fingerprint());
  // The same floats cut into other levels.
  FloatMatrix joined(8, 2);
  joined.values = base.centroids(0).values;
  joined.values.insert(joined.values.end(), base.centroids(1).values.begin(), base.centroids(1).values.end());
  EXPECT_NE(base.fingerprint(), Codebook::FromCentroids("test", {joined})->fingerprint());
  const Codebook foreign = *Codebook::Foreign("x", {4, 4}, kDigest);
  EXPECT_NE(foreign.fingerprint(), base.fingerprint());
  EXPECT_NE(foreign.fingerprint(), Codebook::Foreign("x", {4, 5}, kDigest)->fingerprint());
  EXPECT_NE(foreign.fingerprint(), Codebook::Foreign("x", {4, 4}, std::string(64, 'b'))->fingerprint());
  EXPECT_EQ(foreign.fingerprint(), Codebook::Foreign("y", {4, 4}, kDigest)->fingerprint()) << "names do not count";
}

// Pinned: a change would make every model refuse every catalogue made before it.
TEST(Codebook, FingerprintNeverChanges) {
  FloatMatrix level(2, 1);
  level.values = {1.0f, -2.5f};
  const std::string canonical = std::string("beamline-codebook-1\nlevels 2\ndim 1\n") +
                                std::string(reinterpret_cast<const char*>(level.values.data()), 8);
  EXPECT_EQ(Codebook::FromCentroids("x", {level})->fingerprint(), Sha256Hex(canonical));
  EXPECT_EQ(Codebook::Foreign("x", {256, 8}, kDigest)->fingerprint(),
            Sha256Hex("beamline-codebook-1\nlevels 256,8\nindex " + kDigest + "\n"));
}

TEST(Codebook, RefusesBadParts) {
  const auto refused = [](std::vector<FloatMatrix> levels) {
    return std::string(Codebook::FromCentroids("x", std::move(levels)).status().message());
  };
  EXPECT_THAT(refused({}), HasSubstr("1 to 8 levels"));
  EXPECT_THAT(refused(std::vector<FloatMatrix>(9, FloatMatrix(1, 1))), HasSubstr("1 to 8 levels"));
  EXPECT_THAT(refused({FloatMatrix(0, 1)}), HasSubstr("[0,1]"));
  EXPECT_THAT(refused({FloatMatrix(65537, 1)}), HasSubstr("[65537,1]"));
  EXPECT_THAT(refused({FloatMatrix(2, 3), FloatMatrix(2, 4)}), HasSubstr("dimension 4"));
  FloatMatrix broken(2, 2);
  broken.values[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refused({broken}), HasSubstr("vector 1"));
  EXPECT_FALSE(Codebook::FromCentroids("", {FloatMatrix(1, 1)}).ok());
  EXPECT_FALSE(Codebook::FromCentroids("a\nb", {FloatMatrix(1, 1)}).ok());
  EXPECT_FALSE(Codebook::Foreign("x", {0}, kDigest).ok());
  EXPECT_FALSE(Codebook::Foreign("x", {1}, "short").ok());
}

TEST(Codebook, RefusesWrongVectorsAndSids) {
  const Codebook codebook = Make({4, 5}, 3, 1);
  EXPECT_THAT(std::string(codebook.Encode(FloatMatrix(1, 2)).status().message()), HasSubstr("dimension 2"));
  EXPECT_THAT(std::string(codebook.Decode({Sid{1, 1}, Sid{1, 5}}).status().message()), HasSubstr("row 1"));
  EXPECT_TRUE(codebook.CheckSid(Sid{3, 4}).ok());
  EXPECT_FALSE(codebook.CheckSid(Sid{3}).ok());
  EXPECT_FALSE(codebook.CheckSid(Sid{3, 4, 0}).ok());
  EXPECT_FALSE(codebook.CheckSid(Sid{4, 4}).ok());
  const Codebook foreign = *Codebook::Foreign("x", {4, 5}, kDigest);
  EXPECT_EQ(foreign.Encode(FloatMatrix(1, 3)).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(foreign.Decode({Sid{1, 1}}).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(foreign.CheckSid(Sid{3, 4}).ok());
}

class CodebookFile : public ::testing::Test {
 protected:
  std::string Refused(const std::map<std::string, std::string>& metadata,
                      const std::vector<std::vector<int64_t>>& shapes, DType dtype = DType::kF32) {
    SafetensorsWriter writer;
    for (const auto& [key, value] : metadata) writer.SetMetadata(key, value);
    std::vector<std::byte> zeros(1 << 12);
    for (size_t level = 0; level < shapes.size(); ++level) {
      int64_t bytes = DTypeBytes(dtype);
      for (const int64_t size : shapes[level]) bytes *= size;
      EXPECT_TRUE(
          writer.Add("level_" + std::to_string(level), dtype, shapes[level], {zeros.data(), size_t(bytes)}).ok());
    }
    EXPECT_TRUE(writer.Write(folder_.file("bad")).ok());
    const auto codebook = Codebook::Load(folder_.file("bad"));
    EXPECT_FALSE(codebook.ok());
    EXPECT_THAT(std::string(codebook.status().message()), HasSubstr("bad"));
    return std::string(codebook.status().message());
  }
  const std::map<std::string, std::string> good_ = {
      {"format", "beamline-codebook-1"}, {"name", "x"}, {"level_sizes", "2,3"}, {"fingerprint", kDigest}};
  std::map<std::string, std::string> Without(const std::string& key) {
    auto metadata = good_;
    metadata.erase(key);
    return metadata;
  }
  std::map<std::string, std::string> With(const std::string& key, const std::string& value) {
    auto metadata = good_;
    metadata[key] = value;
    return metadata;
  }
  TempFolder folder_;
};

TEST_F(CodebookFile, RefusesEveryInconsistency) {
  EXPECT_THAT(Refused(good_, {{2, 4}, {3, 4}}), HasSubstr("damaged or edited"));
  EXPECT_THAT(Refused(Without("format"), {{2, 4}, {3, 4}}), HasSubstr("format"));
  EXPECT_THAT(Refused(With("format", "beamline-codebook-2"), {{2, 4}, {3, 4}}), HasSubstr("beamline-codebook-2"));
  EXPECT_THAT(Refused(Without("fingerprint"), {{2, 4}, {3, 4}}), HasSubstr("fingerprint"));
  EXPECT_THAT(Refused(With("level_sizes", "2,x"), {{2, 4}, {3, 4}}), HasSubstr("2,x"));
  EXPECT_THAT(Refused(With("level_sizes", "2,70000"), {{2, 4}, {3, 4}}), HasSubstr("70000"));
  EXPECT_THAT(Refused(With("level_sizes", "1,1,1,1,1,1,1,1,1"), {{2, 4}, {3, 4}}), HasSubstr("levels"));
  EXPECT_THAT(Refused(good_, {{2, 4}}), HasSubstr("missing level_1"));
  EXPECT_THAT(Refused(good_, {{2, 4}, {3, 4}, {3, 4}}), HasSubstr("unexpected level_2"));
  EXPECT_THAT(Refused(good_, {{2, 4}, {4, 4}}), HasSubstr("must be F32[3,-1]"));
  EXPECT_THAT(Refused(good_, {{2, 4}, {3, 5}}), HasSubstr("dimension 5"));
  EXPECT_THAT(Refused(good_, {{2, 4}, {3, 4}}, DType::kF64), HasSubstr("must be F32"));
  EXPECT_THAT(Refused(good_, {}), HasSubstr("index_digest"));
}

// NOT_FOUND would say that there is no file, which a server goes on to look for.
TEST_F(CodebookFile, WhatItsMetadataLacksIsTheFilesFault) {
  for (const char* key : {"format", "name", "level_sizes", "fingerprint"}) {
    EXPECT_THAT(Refused(Without(key), {{2, 4}, {3, 4}}), HasSubstr("'" + std::string(key) + "'"));
    EXPECT_EQ(Codebook::Load(folder_.file("bad")).status().code(), absl::StatusCode::kInvalidArgument) << key;
  }
  EXPECT_THAT(Refused(good_, {}), HasSubstr("'index_digest'"));
  EXPECT_EQ(Codebook::Load(folder_.file("bad")).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Codebook::Load(folder_.file("none")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(CodebookFile, AFlippedFloatIsFound) {
  ASSERT_TRUE(Make({2, 3}, 4, 1).Save(folder_.file("c")).ok());
  std::string bytes = Slurp(folder_.file("c"));
  bytes[bytes.size() - 3] ^= 1;
  folder_.Write("c", bytes);
  EXPECT_EQ(Codebook::Load(folder_.file("c")).status().code(), absl::StatusCode::kDataLoss);
}

TEST(LevelSizes, ParseAndFormat) {
  EXPECT_EQ(*ParseLevelSizes("256,8,1"), (std::vector<uint32_t>{256, 8, 1}));
  EXPECT_EQ(FormatLevelSizes({256, 8, 1}), "256,8,1");
  for (const char* bad : {"", ",", "256,", "-1", "1.5", "0", "65537", "1,1,1,1,1,1,1,1,1", "99999999999999999999"}) {
    EXPECT_FALSE(ParseLevelSizes(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace beamline::sid
