// SPDX-License-Identifier: Apache-2.0
#include "data/ranking_metrics.h"

#include <cmath>
#include <random>
#include <vector>

#include <gtest/gtest.h>

#include "data/statistics.h"

namespace beamline::data {
namespace {

TEST(RankingMetricsTest, OneTargetPerUser) {
  EXPECT_EQ(RecallAt(5, 5), 1);
  EXPECT_EQ(RecallAt(5.5, 5), 0);
  EXPECT_EQ(NdcgAt(1, 10), 1);
  EXPECT_DOUBLE_EQ(NdcgAt(3, 10), 0.5);
  EXPECT_EQ(NdcgAt(kMissRank, 10), 0);
  const std::vector<double> ranks = {1, 3, 7, 11, kMissRank};
  const RankingMetrics mean = MeanMetrics(ranks);
  EXPECT_DOUBLE_EQ(mean.recall_5, 0.4);
  EXPECT_DOUBLE_EQ(mean.recall_10, 0.6);
  EXPECT_DOUBLE_EQ(mean.ndcg_5, 1.5 / 5);
  EXPECT_DOUBLE_EQ(mean.ndcg_10, (1.5 + 1 / 3.0) / 5);
  EXPECT_EQ(FormatMetrics(mean), "R@5 .4000  N@5 .3000  R@10 .6000  N@10 .3667");
  EXPECT_EQ(MeanMetrics({}).recall_10, 0);
  EXPECT_EQ(FormatMetrics({1, 0, 1, 0}), "R@5 1.0000  N@5 .0000  R@10 1.0000  N@10 .0000");
}

std::vector<double> RandomRanks(int users, double hit_rate, uint32_t seed) {
  std::mt19937 random(seed);
  std::bernoulli_distribution hit(hit_rate);
  std::vector<double> ranks;
  for (int user = 0; user < users; ++user) ranks.push_back(hit(random) ? 2.0 : 100.0);
  return ranks;
}

TEST(BootstrapTest, WidthIsThatOfTheBinomial) {
  const std::vector<double> ranks = RandomRanks(4000, 0.2, 3);
  const Interval interval = BootstrapMetrics(ranks).recall_10;
  EXPECT_DOUBLE_EQ(interval.mean, MeanMetrics(ranks).recall_10);
  const double deviation = std::sqrt(0.2 * 0.8 / 4000);
  EXPECT_NEAR(interval.high - interval.low, 2 * 1.96 * deviation, 0.15 * 2 * 1.96 * deviation);
  EXPECT_NEAR((interval.high + interval.low) / 2, interval.mean, 0.2 * deviation);
  BootstrapOptions narrow;
  narrow.confidence = 0.5;
  const Interval half = BootstrapMetrics(ranks, narrow).recall_10;
  EXPECT_NEAR((half.high - half.low) / (interval.high - interval.low), 0.674 / 1.96, 0.06);
}

TEST(BootstrapTest, CoversTheTruthAboutAsOftenAsItSays) {
  int covered = 0;
  for (uint32_t seed = 0; seed < 100; ++seed) {
    const Interval interval = BootstrapMetrics(RandomRanks(300, 0.3, seed), {300, 0.9, seed}).recall_5;
    covered += interval.low <= 0.3 && 0.3 <= interval.high;
  }
  EXPECT_GE(covered, 80);
  EXPECT_LE(covered, 98);
}

TEST(BootstrapTest, PairingCancelsWhatBothShare) {
  std::vector<double> a = RandomRanks(3000, 0.3, 1);
  std::vector<double> b = a;
  for (int user = 0; user < 30; ++user) {
    a[user] = 1;
    b[user] = 50;
  }
  const MetricIntervals paired = PairedBootstrap(a, b).value();
  EXPECT_NEAR(paired.recall_10.mean, 0.01, 1e-12);
  EXPECT_GT(paired.recall_10.low, 0.005);
  EXPECT_LT(paired.recall_10.high, 0.015);
  const Interval single = BootstrapMetrics(a).recall_10;
  EXPECT_GT(single.high - single.low, 3 * (paired.recall_10.high - paired.recall_10.low));
  EXPECT_EQ(PairedBootstrap(a, a).value().ndcg_10.high, 0);
  EXPECT_FALSE(PairedBootstrap(a, {}).ok());
}

// The bootstrap of zeros is zero, which is no more certain than one miss is.
TEST(BootstrapTest, WithoutAHitTheIntervalIsTheExactOne) {
  const std::vector<double> none(100, kMissRank);
  const MetricIntervals intervals = BootstrapMetrics(none);
  for (const Interval& one : {intervals.recall_5, intervals.ndcg_5, intervals.recall_10, intervals.ndcg_10}) {
    EXPECT_EQ(one.low, 0);
    EXPECT_EQ(one.mean, 0);
    EXPECT_NEAR(one.high, 0.0362, 5e-5);  // Clopper and Pearson's for 0 of 100
    EXPECT_NEAR(std::pow(1 - one.high, 100), 0.025, 1e-12) << "so rarely none of 100 is seen at this rate";
  }
  EXPECT_GT(BootstrapMetrics(none, {.confidence = 0.99}).recall_10.high, intervals.recall_10.high);
  EXPECT_LT(BootstrapMetrics(std::vector<double>(1000, kMissRank)).recall_10.high, 0.0037);

  const MetricIntervals difference = PairedBootstrap(none, std::vector<double>(100, 11)).value();
  EXPECT_EQ(difference.recall_10.high, intervals.recall_10.high);
  EXPECT_EQ(difference.recall_10.low, -intervals.recall_10.high);

  // Of each metric alone: rank 7 is a hit among ten, and none among five.
  std::vector<double> one_hit = none;
  one_hit[3] = 7;
  const MetricIntervals some = BootstrapMetrics(one_hit);
  EXPECT_EQ(some.recall_5.high, intervals.recall_5.high);
  EXPECT_EQ(some.recall_10.mean, 0.01);
  EXPECT_NE(some.recall_10.high, intervals.recall_10.high);
  const MetricIntervals paired = PairedBootstrap(one_hit, none).value();
  EXPECT_EQ(paired.ndcg_5.low, -intervals.ndcg_5.high);
  EXPECT_EQ(paired.recall_10.low, 0) << "one of them has a hit: the bootstrap's";
}

TEST(BootstrapTest, WhereAllAreHitsTheIntervalIsTheExactOne) {
  const MetricIntervals all = BootstrapMetrics(std::vector<double>(100, 1));
  for (const Interval& one : {all.recall_5, all.ndcg_5, all.recall_10, all.ndcg_10}) {
    EXPECT_NEAR(one.low, 1 - 0.0362, 5e-5);
    EXPECT_EQ(one.high, 1);
  }
  const MetricIntervals difference = PairedBootstrap(std::vector<double>(100, 1), std::vector<double>(100, 1)).value();
  EXPECT_NEAR(difference.recall_10.low, -0.0362, 5e-5);
  EXPECT_NEAR(difference.ndcg_5.high, 0.0362, 5e-5);
  const MetricIntervals second = BootstrapMetrics(std::vector<double>(100, 2));
  EXPECT_NEAR(second.recall_5.low, 1 - 0.0362, 5e-5);
  EXPECT_EQ(second.ndcg_5.low, second.ndcg_5.mean) << "the bootstrap's";
}

TEST(BootstrapTest, SeededAndEmptySafe) {
  const std::vector<double> ranks = RandomRanks(100, 0.3, 1);
  EXPECT_EQ(BootstrapMetrics(ranks).ndcg_5.low, BootstrapMetrics(ranks).ndcg_5.low);
  EXPECT_NE(BootstrapMetrics(ranks, {1000, 0.95, 1}).ndcg_10.low, BootstrapMetrics(ranks, {997, 0.9, 2}).ndcg_10.low);
  EXPECT_EQ(BootstrapMetrics({}).recall_5.high, 0);
}

TEST(StatisticsTest, GiniSharesAndQuantiles) {
  EXPECT_DOUBLE_EQ(Gini({3, 3, 3}), 0);
  EXPECT_DOUBLE_EQ(Gini({0, 0, 0, 8}), 0.75);
  EXPECT_DOUBLE_EQ(Gini({1, 3}), 0.25);
  EXPECT_EQ(Gini({}), 0);
  EXPECT_DOUBLE_EQ(TopShare({1, 2, 3, 4}, 0.5), 0.7);
  EXPECT_DOUBLE_EQ(TopShare({1, 2, 3, 4}, 0.01), 0.4);
  EXPECT_EQ(TopShare({}, 0.1), 0);
  EXPECT_DOUBLE_EQ(Quantile({1, 2, 3}, 0.5), 2);
  EXPECT_DOUBLE_EQ(Quantile({10, 0}, 0.25), 2.5);
}

TEST(StatisticsTest, CountsALog) {
  StatisticsCounter counter;
  counter.Add("a", {1, 0, 0, 0, kClick});
  counter.Add("a", {1, 0, 0, 0, kClick | kLike});
  counter.Add("b", {2, 0, 0, 0, 0});
  const LogStatistics statistics = counter.Finish(4);
  EXPECT_EQ(statistics.users, 2);
  EXPECT_EQ(statistics.items, 4);
  EXPECT_EQ(statistics.events, 3);
  EXPECT_DOUBLE_EQ(statistics.label_rate[0], 2.0 / 3);
  EXPECT_DOUBLE_EQ(statistics.label_rate[1], 1.0 / 3);
  EXPECT_DOUBLE_EQ(statistics.events_per_user[1], 1.5);
  EXPECT_DOUBLE_EQ(statistics.gini, Gini({0, 0, 1, 2}));
  EXPECT_NE(statistics.ToString().find("2 users, 4 items, 3 events"), std::string::npos);
}

}  // namespace
}  // namespace beamline::data
