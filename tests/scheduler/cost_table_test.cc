// SPDX-License-Identifier: Apache-2.0
#include "scheduler/cost_table.h"

#include <random>
#include <utility>

#include "gtest/gtest.h"
#include "scheduler/test_time.h"

namespace beamline::scheduler {
namespace {

BatchSize Size(int64_t requests, int64_t rows, int64_t tokens) {
  return {.requests = requests, .rows = rows, .context_tokens = tokens};
}

TEST(BatchSizeTest, RowsAreThoseOfTheWidest) {
  BatchSize size;
  for (const auto& [rows, tokens] : {std::pair{8, 100}, std::pair{512, 10}, std::pair{24, 30}}) size.Add(rows, tokens);
  EXPECT_EQ(size.rows, 544);
  EXPECT_EQ(size.computed_rows(), 3 * 512);
  EXPECT_EQ(size.context_tokens, 140);
  EXPECT_EQ(size.padded_tokens(), 300);
  const BatchSize sums{.requests = 3, .rows = 544, .context_tokens = 140};
  EXPECT_EQ(sums.computed_rows(), 544) << "of several batches";
  CostTable cost;
  cost.Observe(WorkKind::kDecode, size, 30 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, {3, 1536, 140}, kNow), 30 * kMs);
  cost.Observe(WorkKind::kEncode, size, 9 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kEncode, {3, 24, 140}, kNow), 9 * kMs) << "an encoder sees no padding";
}

TEST(CostsAtTest, AreTheTablesOwn) {
  std::mt19937 random(3);
  const auto size = [&] {
    BatchSize size;
    const int64_t widest = random() % 2 == 0 ? 512 : 1;  // of 1 there are as many rows as requests
    for (int job = static_cast<int>(random() % 9); job >= 0; --job) size.Add(1 + random() % widest, random() % 600);
    return size;
  };
  for (const bool observed : {false, true}) {
    CostTable cost;
    for (int i = 0; i < (observed ? 40 : 0); ++i) {
      cost.Observe(i % 2 == 0 ? WorkKind::kEncode : WorkKind::kDecode, size(), (1 + random() % 90) * kMs, kNow);
    }
    for (const absl::Time at : {kNow, kNow + absl::Seconds(5)}) {  // the second: all of it is forgotten
      const CostsAt costs(cost, at);
      for (int i = 0; i < 500; ++i) {
        const BatchSize asked = size();
        for (const WorkKind kind : {WorkKind::kEncode, WorkKind::kDecode}) {
          ASSERT_EQ(costs.Estimate(kind, asked), cost.Estimate(kind, asked, at));
        }
      }
    }
  }
}

TEST(CostTableTest, KnowsNothingAtFirst) {
  CostTable cost;
  EXPECT_EQ(cost.Estimate(WorkKind::kEncode, Size(1, 1, 1), kNow), absl::ZeroDuration());
  cost.Observe(WorkKind::kEncode, Size(1, 8, 100), 5 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 8, 100), kNow), absl::ZeroDuration()) << "kinds are apart";
}

TEST(CostTableTest, AveragesInsideABucket) {
  CostTable cost(absl::Seconds(1), 0.5);
  cost.Observe(WorkKind::kDecode, Size(4, 128, 1000), 10 * kMs, kNow);
  cost.Observe(WorkKind::kDecode, Size(4, 140, 1010), 20 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(9, 145, 980), kNow), 15 * kMs);
  for (int i = 0; i < 60; ++i) cost.Observe(WorkKind::kDecode, Size(4, 128, 1000), 40 * kMs, kNow);
  EXPECT_LT(absl::AbsDuration(cost.Estimate(WorkKind::kDecode, Size(4, 128, 1000), kNow) - 40 * kMs),
            absl::Microseconds(1));
}

// A process that stood still for six seconds, as a stopped one does, goes on taking what takes five milliseconds.
TEST(CostTableTest, OneStallSaysLittleAndManySayAll) {
  const BatchSize size = Size(3, 96, 600), other = Size(1, 32, 200);
  for (const bool with_baseline : {false, true}) {
    CostTable cost;
    absl::Time now = kNow;
    const auto run = [&](const BatchSize& batch, absl::Duration took) {
      now += took;  // one behind the other
      cost.Observe(WorkKind::kDecode, batch, took, now);
    };
    if (with_baseline) cost.SetBaseline({{{WorkKind::kDecode, size, 5 * kMs}, {WorkKind::kDecode, other, 3 * kMs}}});
    run(size, 5 * kMs);
    run(size, 6000 * kMs);
    EXPECT_LE(cost.Estimate(WorkKind::kDecode, size, now), 15 * kMs);
    if (with_baseline) {
      run(other, 6000 * kMs);  // its bucket's first
      EXPECT_LE(cost.Estimate(WorkKind::kDecode, other, now), 25 * kMs);
    }
    for (int i = 0; i < 14; ++i) run(size, 6000 * kMs);
    EXPECT_GT(cost.Estimate(WorkKind::kDecode, size, now), 3000 * kMs) << "it has become slow";
  }
}

TEST(CostTableTest, LearnsWhatBecomesSlowFromNothing) {
  CostTable cost;
  for (int i = 0; i < 40; ++i)
    cost.Observe(WorkKind::kDecode, Size(1, 8, 64), i < 2 ? absl::ZeroDuration() : 100 * kMs, kNow);
  EXPECT_GT(cost.Estimate(WorkKind::kDecode, Size(1, 8, 64), kNow), 90 * kMs);
}

TEST(CostTableTest, ScalesFromTheNearestBucket) {
  CostTable cost;
  cost.Observe(WorkKind::kDecode, Size(1, 64, 256), 8 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(2, 128, 256), kNow), 16 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(2, 128, 1024), kNow), 32 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 16, 256), kNow), 4 * kMs);
  cost.Observe(WorkKind::kDecode, Size(8, 512, 2048), 20 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(16, 1024, 4096), kNow), 40 * kMs);
}

TEST(CostTableTest, ForgetsWhatNothingRefreshes) {
  CostTable cost(absl::Seconds(1));
  cost.Observe(WorkKind::kEncode, Size(1, 8, 64), 500 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kEncode, Size(1, 8, 64), kNow + absl::Seconds(1)), 500 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kEncode, Size(1, 8, 64), kNow + absl::Milliseconds(1001)), absl::ZeroDuration());
}

TEST(CostTableTest, ForgetsASizeThatNoLongerComesWhileOthersDo) {
  CostTable cost(absl::Seconds(1));
  const BatchSize small = Size(1, 8, 64), large = Size(16, 512, 4096);
  cost.SetBaseline({{{WorkKind::kDecode, small, 2 * kMs}, {WorkKind::kDecode, large, 20 * kMs}}});
  for (int i = 0; i < 50; ++i) cost.Observe(WorkKind::kDecode, large, 3000 * kMs, kNow);
  EXPECT_GT(cost.Estimate(WorkKind::kDecode, large, kNow), 2000 * kMs) << "a stall";
  for (int i = 1; i <= 110; ++i) cost.Observe(WorkKind::kDecode, small, 2 * kMs, kNow + i * 100 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, large, kNow + 11000 * kMs), 20 * kMs);
}

TEST(CostTableTest, TheBaselineSpeaksWhereNothingWasObservedLately) {
  CostTable cost(absl::Seconds(1), 0.5);
  cost.SetBaseline(
      {{{WorkKind::kDecode, Size(1, 32, 100), 10 * kMs}, {WorkKind::kDecode, Size(8, 256, 800), 20 * kMs}}});
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 10 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(16, 512, 1600), kNow), 40 * kMs) << "beyond it: proportional";
  EXPECT_EQ(cost.Estimate(WorkKind::kEncode, Size(1, 32, 100), kNow), absl::ZeroDuration());
  cost.Observe(WorkKind::kDecode, Size(1, 32, 100), 20 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 15 * kMs) << "half believed";
  EXPECT_EQ(cost.Least(WorkKind::kDecode, Size(1, 32, 100), kNow), 10 * kMs);
  const absl::Time later = kNow + absl::Milliseconds(1001);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), later), 10 * kMs);
}

TEST(CostTableTest, ObservationsCarryOverByTheShapeOfTheBaseline) {
  CostTable cost(absl::Seconds(1), 0.5);
  cost.SetBaseline(
      {{{WorkKind::kDecode, Size(1, 32, 100), 10 * kMs}, {WorkKind::kDecode, Size(8, 256, 800), 20 * kMs}}});
  cost.Observe(WorkKind::kDecode, Size(1, 32, 100), 50 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(8, 256, 800), kNow), 60 * kMs) << "eight at once cost twice, not 8x";
  cost.SetBaseline({});
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(8, 256, 800), kNow), 240 * kMs) << "nothing else is known";
}

TEST(CostTableTest, AStallOfASmallBatchIsNotMultiplied) {
  CostTable cost(absl::Seconds(1), 0.2);
  cost.SetBaseline(
      {{{WorkKind::kDecode, Size(1, 1, 80), 2 * kMs}, {WorkKind::kDecode, Size(4, 4096, 320), 100 * kMs}}});
  // Expected 2, so 16 are heard of, and a fifth of the difference is believed.
  cost.Observe(WorkKind::kDecode, Size(1, 1, 80), 102 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 1, 80), kNow), 4.8 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(4, 4096, 320), kNow), 102.8 * kMs) << "2.4 times as much before";
}

TEST(CostTableTest, ALesserCostThanExpectedIsBelievedAtOnce) {
  CostTable cost(absl::Seconds(1), 0.2);
  cost.SetBaseline({{{WorkKind::kDecode, Size(1, 32, 100), absl::Seconds(10)}}});
  cost.Observe(WorkKind::kDecode, Size(1, 32, 100), 10 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 10 * kMs);
}

// Measured beside the traffic of another version, and within so small a budget that there is one size.
TEST(CostTableTest, WhateverRunsInLessBoundsTheBaseline) {
  CostTable cost;
  cost.SetBaseline({{{WorkKind::kDecode, Size(1, 32, 100), 500 * kMs}}});
  cost.BoundBaseline(WorkKind::kDecode, Size(8, 256, 800), 20 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 30 * kMs) << "sizes of a bucket differ";
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(8, 256, 800), kNow), 30 * kMs) << "not eight times as much";
  cost.BoundBaseline(WorkKind::kDecode, Size(1, 32, 100), 4 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 6 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(8, 256, 800), kNow), 30 * kMs) << "of larger ones it says nothing";
  cost.BoundBaseline(WorkKind::kDecode, Size(4, 128, 400), absl::Seconds(1));
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 6 * kMs) << "nor does one that took long";
  cost.BoundBaseline(WorkKind::kEncode, Size(1, 32, 100), 4 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kEncode, Size(1, 32, 100), kNow), absl::ZeroDuration()) << "there is none";
}

TEST(CostTableTest, IsStaleUntilBothKindsWereObserved) {
  CostTable cost(absl::Seconds(1));
  EXPECT_TRUE(cost.Stale(kNow));
  cost.SetBaseline({{{WorkKind::kDecode, Size(1, 32, 100), 10 * kMs}}});
  cost.Observe(WorkKind::kDecode, Size(1, 32, 100), kMs, kNow);
  EXPECT_TRUE(cost.Stale(kNow)) << "of encode nothing is known";
  cost.Observe(WorkKind::kEncode, Size(1, 32, 100), kMs, kNow);
  EXPECT_FALSE(cost.Stale(kNow + absl::Seconds(1)));
  EXPECT_TRUE(cost.Stale(kNow + absl::Milliseconds(1001)));
}

TEST(CostTableTest, ABatchThatStoppedEarlyOnlyRaises) {
  CostTable cost(absl::Seconds(1), 0.5);
  cost.Observe(WorkKind::kDecode, Size(1, 8, 64), 20 * kMs, kNow);
  cost.ObserveAtLeast(WorkKind::kDecode, Size(1, 8, 64), 2 * kMs, kNow + absl::Milliseconds(900));
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 8, 64), kNow + absl::Milliseconds(1800)), 20 * kMs)
      << "it refreshes";
  cost.ObserveAtLeast(WorkKind::kDecode, Size(1, 8, 64), 40 * kMs, kNow + absl::Seconds(1));
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 8, 64), kNow + absl::Seconds(1)), 30 * kMs);
}

TEST(CostTableTest, ABatchThatStoppedEarlyLowersNoExpectation) {
  CostTable cost(absl::Seconds(1), 0.5);
  cost.SetBaseline(
      {{{WorkKind::kDecode, Size(1, 32, 100), 50 * kMs}, {WorkKind::kDecode, Size(8, 256, 800), 200 * kMs}}});
  cost.ObserveAtLeast(WorkKind::kDecode, Size(1, 32, 100), kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 50 * kMs);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(8, 256, 800), kNow), 200 * kMs);
  EXPECT_TRUE(cost.Stale(kNow)) << "nothing was learnt";
  cost.ObserveAtLeast(WorkKind::kDecode, Size(1, 32, 100), 70 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 32, 100), kNow), 60 * kMs) << "half believed";
  cost.ObserveAtLeast(WorkKind::kDecode, Size(8, 256, 800), 100 * kMs, kNow);
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(8, 256, 800), kNow), 240 * kMs) << "as the one below has it";
}

TEST(CostTableTest, ABatchThatStoppedEarlyRevivesNothing) {
  CostTable cost(absl::Seconds(1), 0.5);
  cost.Observe(WorkKind::kDecode, Size(1, 8, 64), absl::Seconds(10), kNow);
  cost.ObserveAtLeast(WorkKind::kDecode, Size(1, 8, 64), 5 * kMs, kNow + absl::Seconds(2));
  EXPECT_EQ(cost.Estimate(WorkKind::kDecode, Size(1, 8, 64), kNow + absl::Seconds(2)), 5 * kMs);
}

TEST(CostTableTest, AnySizeGivesAFiniteEstimate) {
  std::mt19937_64 random(7);
  CostTable cost;
  for (int i = 0; i < 2000; ++i) {
    const BatchSize size = Size(random() % 3 ? random() % 100 : random() >> 2, random() >> (random() % 63 + 1),
                                random() >> (random() % 63 + 1));
    const auto kind = static_cast<WorkKind>(random() % 2);
    if (random() % 4 == 0) cost.Observe(kind, size, absl::Microseconds(random() % 1'000'000), kNow);
    const absl::Duration estimate = cost.Estimate(kind, size, kNow);
    ASSERT_GE(estimate, absl::ZeroDuration());
    ASSERT_LE(kNow + estimate, absl::InfiniteFuture());
  }
}

}  // namespace
}  // namespace beamline::scheduler
