// SPDX-License-Identifier: Apache-2.0
#include "loadgen/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace beamline::loadgen {
namespace {

// Of tables of the distribution-free interval: n = 10, median: ranks 2 and 9 (97.9 %); n = 100: 40 and 61 (96.5 %).
TEST(QuantileRanksTest, EqualsTheTables) {
  const auto expect = [](int64_t n, double q, int64_t low, int64_t high) {
    const RankInterval ranks = QuantileRanks(n, q, 0.95);
    EXPECT_EQ(ranks.low, low) << n << " " << q;
    EXPECT_EQ(ranks.high, high) << n << " " << q;
  };
  expect(10, 0.5, 2, 9);
  expect(100, 0.5, 40, 61);
  expect(5, 0.5, 0, 6);  // 5 values bound the median with 93.75 % at most
  expect(6, 0.5, 1, 6);
}

TEST(QuantileRanksTest, SaysWhereNoValueLiesFarEnoughOut) {
  EXPECT_EQ(QuantileRanks(100, 0.99, 0.95).high, 101);
  EXPECT_EQ(QuantileRanks(1000, 0.999, 0.95).high, 1001);
  EXPECT_LE(QuantileRanks(10'000, 0.999, 0.95).high, 10'000);
  EXPECT_EQ(QuantileRanks(0, 0.5, 0.95).high, 1);
  EXPECT_EQ(QuantileRanks(1, 0.5, 0.95).low, 0);
}

// The interval holds the true quantile as often as it says, whatever the distribution.
TEST(QuantileRanksTest, CoversWhatItPromises) {
  std::mt19937_64 random(5);
  std::exponential_distribution<double> exponential(1.0);
  for (const double q : {0.5, 0.9, 0.99}) {
    constexpr int kSamples = 800, kRounds = 2000;
    const double truth = -std::log(1 - q);
    const RankInterval ranks = QuantileRanks(kSamples, q, 0.95);
    ASSERT_GE(ranks.low, 1);
    ASSERT_LE(ranks.high, kSamples);
    int covered = 0;
    for (int round = 0; round < kRounds; ++round) {
      std::vector<double> values(kSamples);
      std::generate(values.begin(), values.end(), [&] { return exponential(random); });
      std::sort(values.begin(), values.end());
      covered += values[ranks.low - 1] <= truth && truth <= values[ranks.high - 1];
    }
    EXPECT_GE(covered, 0.945 * kRounds) << q;
    EXPECT_LE(covered, 0.985 * kRounds) << q << ": wider than it needs to be";
  }
}

TEST(QuantileRanksTest, AMillionValuesAreNoTrouble) {
  const RankInterval ranks = QuantileRanks(1'000'000, 0.999, 0.95);
  EXPECT_NEAR(static_cast<double>(ranks.low), 999'000 - 62, 3);
  EXPECT_NEAR(static_cast<double>(ranks.high), 999'000 + 62, 3);
}

TEST(SummaryTest, QuantilesAreValuesOfTheirRank) {
  std::vector<double> values(1000);
  std::iota(values.begin(), values.end(), 1);
  std::shuffle(values.begin(), values.end(), std::mt19937_64(1));
  const Summary summary = Summarize(values);
  EXPECT_EQ(summary.count, 1000);
  EXPECT_EQ(summary.mean, 500.5);
  EXPECT_EQ(summary.max, 1000);
  EXPECT_EQ(summary.at(0.5).value, 500);
  EXPECT_EQ(summary.at(0.9).value, 900);
  EXPECT_EQ(summary.at(0.99).value, 990);
  EXPECT_EQ(summary.at(0.999).value, 999);
  EXPECT_LT(summary.at(0.5).low, 500);
  EXPECT_GT(summary.at(0.5).high, 500);
  EXPECT_FALSE(summary.at(0.999).high.has_value());
  EXPECT_EQ(Summarize({}).count, 0);
  EXPECT_EQ(Summarize({7}).at(0.99).value, 7);
}

}  // namespace
}  // namespace beamline::loadgen
