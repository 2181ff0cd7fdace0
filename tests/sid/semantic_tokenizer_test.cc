// SPDX-License-Identifier: Apache-2.0
#include "sid/semantic_tokenizer.h"

#include <map>

#include <gtest/gtest.h>

#include "sid/residual_kmeans.h"
#include "sid/sid_test_util.h"

namespace beamline::sid {
namespace {

double Error(const Codebook& codebook, const FloatMatrix& vectors, int64_t row, const Sid& sid) {
  const FloatMatrix decoded = *codebook.Decode({sid});
  double error = 0;
  for (int64_t d = 0; d < vectors.cols; ++d) {
    const double difference = double{vectors.row(row)[d]} - decoded.row(0)[d];
    error += difference * difference;
  }
  return error;
}

TEST(SemanticTokenizer, NewItemsTakeTheNearestFreeCodeUnderTheirPrefix) {
  const FloatMatrix vectors = ClusteredVectors(800, 8, 10, 0.4f, 1);
  ResidualKMeansOptions options;
  options.level_sizes = {8, 64};
  options.collision_free = true;
  const auto fit = FitResidualKMeans(vectors, options);
  ASSERT_TRUE(fit.ok());
  const Codebook codebook = fit->codebook;
  auto tokenizer = SemanticTokenizer::Create(codebook);
  ASSERT_TRUE(tokenizer.ok());
  // Half the items are known, the other half arrives.
  std::vector<Sid> known(fit->sids.begin(), fit->sids.begin() + 200);
  ASSERT_TRUE(tokenizer->Occupy(known).ok());
  FloatMatrix arriving(200, 8);
  std::copy(vectors.row(600), vectors.row(800), arriving.values.begin());
  const std::vector<Sid> nearest = *tokenizer->Encode(arriving);
  const std::vector<Sid> sids = *tokenizer->EncodeNew(arriving, 1);

  std::map<Sid, int> taken;
  for (const Sid& sid : known) ++taken[sid];
  int moved = 0;
  for (int64_t i = 0; i < 200; ++i) {
    ASSERT_EQ(sids[i][0], nearest[i][0]);
    Sid best;
    double best_error = 1e30;
    for (Code code = 0; code < 64; ++code) {
      const Sid candidate{nearest[i][0], code};
      if (taken[candidate] > 0) continue;
      const double error = Error(codebook, arriving, i, candidate);
      if (error < best_error) best = candidate, best_error = error;
    }
    if (best.empty()) {
      EXPECT_EQ(sids[i], nearest[i]) << "a full prefix keeps the nearest code";
    } else {
      EXPECT_NEAR(Error(codebook, arriving, i, sids[i]), best_error, 1e-4);
      EXPECT_EQ(taken[sids[i]], 0);
    }
    moved += sids[i] != nearest[i] ? 1 : 0;
    ++taken[sids[i]];
  }
  EXPECT_GT(moved, 0);
}

TEST(SemanticTokenizer, FullPrefixesAndRefusals) {
  FloatMatrix level(2, 1);
  level.values = {0.0f, 1.0f};
  auto tokenizer = SemanticTokenizer::Create(*Codebook::FromCentroids("x", {level}));
  FloatMatrix vectors(3, 1);
  EXPECT_EQ(*tokenizer->EncodeNew(vectors, 1), (std::vector<Sid>{Sid{0}, Sid{1}, Sid{0}}));
  EXPECT_FALSE(tokenizer->EncodeNew(vectors, 0).ok());
  EXPECT_FALSE(tokenizer->EncodeNew(FloatMatrix(1, 2), 1).ok());
  EXPECT_FALSE(tokenizer->Occupy({Sid{2}}).ok());
  EXPECT_EQ(tokenizer->EncodeNew(FloatMatrix(0, 1), 1)->size(), 0u);
  EXPECT_FALSE(SemanticTokenizer::Create(*Codebook::Foreign("x", {4}, std::string(64, 'a'))).ok());
}

}  // namespace
}  // namespace beamline::sid
