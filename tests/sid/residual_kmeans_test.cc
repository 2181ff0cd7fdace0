// SPDX-License-Identifier: Apache-2.0
#include "sid/residual_kmeans.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "sid/kmeans.h"
#include "sid/sid_test_util.h"
#include "sid/tokenizer_report.h"

namespace beamline::sid {
namespace {

using ::testing::HasSubstr;

ResidualKMeansOptions Levels(std::vector<uint32_t> sizes) {
  ResidualKMeansOptions options;
  options.level_sizes = std::move(sizes);
  return options;
}

double MeanSquaredError(const FloatMatrix& vectors, const ResidualKMeansResult& fit) {
  const FloatMatrix decoded = *fit.codebook.Decode(fit.sids);
  double error = 0;
  for (size_t i = 0; i < vectors.values.size(); ++i) {
    const double difference = double{vectors.values[i]} - decoded.values[i];
    error += difference * difference;
  }
  return error / static_cast<double>(vectors.rows);
}

// Lloyd in double precision from the same start: the shared optimum must not be missed by more than rounding.
TEST(KMeans, AgreesWithADoublePrecisionLloyd) {
  const FloatMatrix points = ClusteredVectors(800, 5, 12, 0.4f, 1);
  RandomSource random(1, 0);
  RandomSource same_random(1, 0);
  ResidualKMeansOptions options;
  options.iterations = 12;
  options.tolerance = 0;
  options.init = KMeansInit::kSampled;
  const auto fit = FitKMeans(points, 10, options, {random});
  ASSERT_TRUE(fit.ok());

  const FloatMatrix start = SeedSampled(points, 10, same_random);
  std::vector<double> centroids(start.values.begin(), start.values.end());
  for (int iteration = 0; iteration < fit->iterations; ++iteration) {
    std::vector<double> sum(centroids.size(), 0);
    std::vector<int> count(10, 0);
    for (int64_t i = 0; i < points.rows; ++i) {
      int nearest = 0;
      double best = std::numeric_limits<double>::infinity();
      for (int c = 0; c < 10; ++c) {
        double distance = 0;
        for (int d = 0; d < 5; ++d) distance += std::pow(points.row(i)[d] - centroids[c * 5 + d], 2);
        if (distance < best) best = distance, nearest = c;
      }
      ++count[nearest];
      for (int d = 0; d < 5; ++d) sum[nearest * 5 + d] += points.row(i)[d];
    }
    for (int c = 0; c < 10; ++c) {
      ASSERT_GT(count[c], 0) << "the test needs a start without empty codes";
      for (int d = 0; d < 5; ++d) centroids[c * 5 + d] = sum[c * 5 + d] / count[c];
    }
  }
  for (size_t k = 0; k < centroids.size(); ++k) EXPECT_NEAR(fit->centroids.values[k], centroids[k], 1e-4);
}

TEST(KMeans, PlusPlusStartsFromDistinctPointsAndBeatsSampling) {
  const FloatMatrix points = ClusteredVectors(4000, 8, 64, 0.05f, 2);
  RandomSource random(1, 0);
  const FloatMatrix seeds = SeedPlusPlus(points, 64, random, nullptr);
  std::set<std::vector<float>> distinct;
  for (int64_t c = 0; c < 64; ++c) distinct.insert({seeds.row(c), seeds.row(c) + 8});
  EXPECT_EQ(distinct.size(), 64u);
  ResidualKMeansOptions options = Levels({64});
  options.iterations = 1;
  const double plus_plus = MeanSquaredError(points, *FitResidualKMeans(points, options));
  options.init = KMeansInit::kSampled;
  EXPECT_LT(plus_plus, 0.7 * MeanSquaredError(points, *FitResidualKMeans(points, options)));
}

TEST(ResidualKMeans, SidsAreTheCodebooksOwnEncoding) {
  const FloatMatrix vectors = ClusteredVectors(3000, 16, 40, 0.5f, 3);
  const auto fit = FitResidualKMeans(vectors, Levels({32, 16, 8, 4}));
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->sids, *fit->codebook.Encode(vectors));
  EXPECT_EQ(fit->codebook.level_sizes(), (std::vector<uint32_t>{32, 16, 8, 4}));
  EXPECT_EQ(fit->iterations.size(), 4u);
}

TEST(ResidualKMeans, EveryLevelLowersTheError) {
  const FloatMatrix vectors = ClusteredVectors(3000, 16, 40, 0.5f, 4);
  double previous = std::numeric_limits<double>::infinity();
  for (size_t levels = 1; levels <= 4; ++levels) {
    const auto fit = FitResidualKMeans(vectors, Levels(std::vector<uint32_t>(levels, 32)));
    ASSERT_TRUE(fit.ok());
    const double error = MeanSquaredError(vectors, *fit);
    EXPECT_LT(error, previous);
    previous = error;
  }
}

// Distinct points as many as codes: every point its own centroid, whatever the start.
TEST(ResidualKMeans, ReseedsEmptyCodes) {
  FloatMatrix vectors(64, 2);
  for (int64_t i = 0; i < 64; ++i) {
    vectors.row(i)[0] = static_cast<float>(i < 60 ? 0.001 * static_cast<double>(i) : 100.0 * static_cast<double>(i));
  }
  ResidualKMeansOptions options = Levels({8});
  options.init = KMeansInit::kSampled;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    options.seed = seed;
    const auto fit = FitResidualKMeans(vectors, options);
    ASSERT_TRUE(fit.ok());
    std::set<Sid> used(fit->sids.begin(), fit->sids.end());
    EXPECT_EQ(used.size(), 8u) << "seed " << seed;
  }
}

TEST(ResidualKMeans, ASampleOfMoreThanThereAreIsAllOfThem) {
  const FloatMatrix vectors = ClusteredVectors(100, 4, 8, 0.5f, 21);
  ResidualKMeansOptions options = Levels({16, 16});
  options.max_points_per_centroid = 0;
  const auto all = FitResidualKMeans(vectors, options);
  ASSERT_TRUE(all.ok()) << all.status();
  for (const int64_t most : {int64_t{7}, int64_t{1} << 60, std::numeric_limits<int64_t>::max()}) {
    options.max_points_per_centroid = most;
    const auto fit = FitResidualKMeans(vectors, options);
    ASSERT_TRUE(fit.ok()) << fit.status();
    EXPECT_EQ(fit->sids, all->sids) << most;
  }
  options.max_points_per_centroid = 6;
  EXPECT_NE(FitResidualKMeans(vectors, options)->sids, all->sids);
}

TEST(ResidualKMeans, EqualVectorsDoNotLoop) {
  FloatMatrix vectors(100, 3);
  for (float& value : vectors.values) value = 2.0f;
  for (const bool balanced : {false, true}) {
    ResidualKMeansOptions options = Levels({8, 8});
    options.balanced = balanced;
    options.collision_free = true;
    const auto fit = FitResidualKMeans(vectors, options);
    ASSERT_TRUE(fit.ok()) << fit.status();
    EXPECT_NEAR(MeanSquaredError(vectors, *fit), 0, 1e-9);
  }
}

TEST(ResidualKMeans, ThreadsDoNotMatterAndSeedsDo) {
  const FloatMatrix vectors = ClusteredVectors(6000, 16, 40, 0.5f, 5);
  for (const bool balanced : {false, true}) {
    ResidualKMeansOptions options = Levels({32, 32, 32});
    options.balanced = balanced;
    options.collision_free = true;
    options.max_points_per_centroid = 64;
    const auto inline_fit = FitResidualKMeans(vectors, options);
    ThreadPool one(1);
    ThreadPool three(3);
    const auto one_fit = FitResidualKMeans(vectors, options, &one);
    const auto three_fit = FitResidualKMeans(vectors, options, &three);
    ASSERT_TRUE(inline_fit.ok() && one_fit.ok() && three_fit.ok());
    EXPECT_EQ(inline_fit->codebook.fingerprint(), one_fit->codebook.fingerprint());
    EXPECT_EQ(inline_fit->codebook.fingerprint(), three_fit->codebook.fingerprint());
    EXPECT_EQ(inline_fit->sids, three_fit->sids);
    options.seed = 2;
    EXPECT_NE(FitResidualKMeans(vectors, options)->codebook.fingerprint(), inline_fit->codebook.fingerprint());
  }
}

TEST(ResidualKMeans, BalancedCodesHoldTheirShareAtLittleCost) {
  const FloatMatrix vectors = ClusteredVectors(5000, 16, 40, 0.5f, 6);
  ResidualKMeansOptions options = Levels({32, 32});
  const auto free_fit = FitResidualKMeans(vectors, options);
  options.balanced = true;
  const auto fit = FitResidualKMeans(vectors, options);
  ASSERT_TRUE(fit.ok()) << fit.status();
  for (int level = 0; level < 2; ++level) {
    std::vector<int> counts(32, 0);
    for (const Sid& sid : fit->sids) ++counts[sid[level]];
    EXPECT_LE(*std::max_element(counts.begin(), counts.end()), (5000 + 31) / 32);
    EXPECT_GE(*std::min_element(counts.begin(), counts.end()), 5000 - 31 * ((5000 + 31) / 32));
  }
  EXPECT_LT(MeanSquaredError(vectors, *fit), 1.4 * MeanSquaredError(vectors, *free_fit));
  options.balance_slack = 1.5;
  const auto slack_fit = FitResidualKMeans(vectors, options);
  std::vector<int> counts(32, 0);
  for (const Sid& sid : slack_fit->sids) ++counts[sid[0]];
  EXPECT_LE(*std::max_element(counts.begin(), counts.end()), std::ceil(1.5 * 5000 / 32));
}

// Fewer codes than tight, uneven clusters, so that balance has to cut clusters: still far better than no codes at all.
TEST(ResidualKMeans, BalanceSurvivesLumpyData) {
  const FloatMatrix vectors = ClusteredVectors(6000, 32, 400, 0.2f, 10);
  ResidualKMeansOptions options = Levels({200});
  const double free_error = MeanSquaredError(vectors, *FitResidualKMeans(vectors, options));
  options.balanced = true;
  const auto fit = FitResidualKMeans(vectors, options);
  std::vector<int> counts(200, 0);
  for (const Sid& sid : fit->sids) ++counts[sid[0]];
  EXPECT_EQ(*std::max_element(counts.begin(), counts.end()), 30);
  EXPECT_LT(MeanSquaredError(vectors, *fit), 2 * free_error);
  EXPECT_LT(ReportTokenizer(fit->codebook, fit->sids, &vectors)->tokenizer.error, 0.6);
}

TEST(ResidualKMeans, CollisionFreeSidsAreUniqueAtLittleCost) {
  const FloatMatrix vectors = ClusteredVectors(3000, 16, 40, 0.5f, 7);
  ResidualKMeansOptions options = Levels({16, 16, 64});
  const auto free_fit = FitResidualKMeans(vectors, options);
  options.collision_free = true;
  const auto fit = FitResidualKMeans(vectors, options);
  ASSERT_TRUE(fit.ok()) << fit.status();
  EXPECT_EQ(fit->codebook.fingerprint(), free_fit->codebook.fingerprint());
  const auto before = ReportTokenizer(free_fit->codebook, free_fit->sids, &vectors)->tokenizer;
  const auto after = ReportTokenizer(fit->codebook, fit->sids, &vectors)->tokenizer;
  // As many as prefixes have room for.
  std::map<Sid, int64_t> prefixes;
  for (const Sid& sid : fit->sids) ++prefixes[Sid(sid.codes().first(2))];
  int64_t possible = 0;
  for (const auto& [prefix, count] : prefixes) possible += std::min<int64_t>(count, 64);
  EXPECT_EQ(after.distinct_sids, possible);
  EXPECT_LT(before.distinct_sids, possible - 100) << "the test needs collisions";
  EXPECT_GT(fit->moved_items, 0);
  EXPECT_LT(after.error, 1.5 * before.error);
  options.max_items_per_sid = 2;
  const auto pairs = FitResidualKMeans(vectors, options);
  EXPECT_LT(pairs->moved_items, fit->moved_items);
}

TEST(ResidualKMeans, RefusesBadOptionsAndVectors) {
  const FloatMatrix vectors = ClusteredVectors(100, 4, 5, 0.5f, 8);
  const auto message = [&](const ResidualKMeansOptions& options) {
    return std::string(FitResidualKMeans(vectors, options).status().message());
  };
  EXPECT_THAT(message(Levels({})), HasSubstr("1 to 8 levels"));
  EXPECT_THAT(message(Levels(std::vector<uint32_t>(9, 2))), HasSubstr("1 to 8 levels"));
  EXPECT_THAT(message(Levels({4, 0})), HasSubstr("level 2 has 0 codes"));
  EXPECT_THAT(message(Levels({65537})), HasSubstr("65537"));
  EXPECT_THAT(message(Levels({101})), HasSubstr("100 vectors"));
  ResidualKMeansOptions options = Levels({4});
  options.iterations = 0;
  EXPECT_THAT(message(options), HasSubstr("iterations is 0"));
  options = Levels({4});
  options.balance_slack = 0.5;
  EXPECT_THAT(message(options), HasSubstr("balance_slack"));
  options = Levels({4});
  options.max_items_per_sid = 0;
  EXPECT_THAT(message(options), HasSubstr("max_items_per_sid"));
  options = Levels({4});
  options.max_move_error = std::nan("");
  EXPECT_THAT(message(options), HasSubstr("max_move_error"));
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), 1e20f}) {
    FloatMatrix broken = vectors;
    broken.row(7)[2] = bad;
    EXPECT_THAT(std::string(FitResidualKMeans(broken, Levels({4})).status().message()), HasSubstr("vector 7"));
  }
}

TEST(ResidualKMeans, InterruptCancels) {
  const FloatMatrix vectors = ClusteredVectors(1000, 4, 5, 0.5f, 9);
  SetInterrupted(true);
  const auto fit = FitResidualKMeans(vectors, Levels({16, 16}));
  SetInterrupted(false);
  EXPECT_EQ(fit.status().code(), absl::StatusCode::kCancelled);
}

// Seeding grows with the square of the codes: minutes of it must not stand between Ctrl-C and the end.
TEST(KMeans, InterruptStopsTheSeeding) {
  const FloatMatrix points = ClusteredVectors(500, 3, 16, 0.3f, 3);
  RandomSource random(1, 0);
  SetInterrupted(true);
  const FloatMatrix seeds = SeedPlusPlus(points, 16, random, nullptr);
  SetInterrupted(false);
  EXPECT_THAT(seeds.values, ::testing::Each(0.0f));
}

TEST(RandomSource, IsTheSameEverywhere) {
  RandomSource random(1, 2);
  EXPECT_EQ(random.Next(), RandomSource(1, 2).Next());
  EXPECT_NE(random.Next(), RandomSource(2, 2).Next());
  const std::vector<int64_t> sample = random.Sample(1000, 100);
  EXPECT_EQ(sample.size(), 100u);
  EXPECT_TRUE(std::is_sorted(sample.begin(), sample.end()));
  EXPECT_EQ(std::set<int64_t>(sample.begin(), sample.end()).size(), 100u);
  EXPECT_EQ(random.Sample(5, 5), (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

}  // namespace
}  // namespace beamline::sid
