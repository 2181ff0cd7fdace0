// SPDX-License-Identifier: Apache-2.0
#include "train/examples.h"

#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "train/loss.h"
#include "train/train_test_util.h"

namespace beamline::train {
namespace {

// Every training target occurs once per epoch where windows do not drop any.
TEST(ExamplesTest, CausalWindowsCoverEveryTrainingTargetOnce) {
  for (const int length : {1, 2, 3, 12, 13, 14, 15, 40, 100}) {
    const World world(RingLog(5, 30, length), "cover");
    TrainOptions options = QuickOptions();
    options.targets_per_window = 100;
    const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, options);
    for (const int epoch : {0, 1, 2}) {
      int64_t targets = 0;
      for (const auto& windows : examples.Plan(epoch)) {
        for (const Window& window : windows) {
          EXPECT_LE(window.first_target, window.last_target);
          EXPECT_LT(window.last_target, world.corpus->training_end(window.user));
        }
        targets += examples.Build(windows, 1).targets;
      }
      int64_t expected = 0;
      for (int user = 0; user < 5; ++user) expected += world.corpus->training_targets(user);
      EXPECT_EQ(targets, expected) << "length " << length << ", epoch " << epoch;
    }
  }
}

// A target sees exactly the kept events before it, under the items that were there.
TEST(ExamplesTest, OrderLimitsNameTheEventBeforeTheTarget) {
  const Log log = {{{10}, {11, "click"}, {12}, {13, "click"}, {14}, {15}, {16}, {17}}};
  const World world(log, "limits");
  TrainOptions options = QuickOptions();
  const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, options);
  const EpochPlan plan = examples.Plan(0);
  ASSERT_EQ(plan.size(), 1u);
  const ExampleBatch batch = examples.Build(plan[0], 3);
  // Targets 10 12 14 15 (16 and 17 are held out); positive events before 15: 10 12 14, orders 0 2 4.
  ASSERT_EQ(batch.targets, 4);
  EXPECT_EQ(batch.encoder.order, (std::vector<int32_t>{0, 2, 4}));
  EXPECT_EQ(batch.teacher.order_limit, (std::vector<int32_t>{-1, 1, 3, 4}));
  const Sid last = SidOf(15);
  for (int level = 0; level < 3; ++level) EXPECT_EQ(batch.labels[3 * 3 + level], static_cast<int64_t>(last[level]));
}

// An item without a SID is neither seen nor counted; what was there before it is still seen.
TEST(ExamplesTest, OrderLimitsPassOverItemsWithoutSid) {
  const Log log = {{{10}, {11, "click"}, {12}, {13, "click"}, {14}, {15}, {16}, {17}}};
  const World world(log, "limits_without");
  const auto snapshot = MakeSnapshot(*world.corpus, /*without=*/14);
  const ExampleBuilder examples(*world.corpus, *world.features, *snapshot, QuickOptions());
  const ExampleBatch batch = examples.Build(examples.Plan(0)[0], 3);
  // Targets 10 12 15; positive events before 15 with a SID: 10 12, orders 0 2.
  ASSERT_EQ(batch.targets, 3);
  EXPECT_EQ(batch.encoder.order, (std::vector<int32_t>{0, 2}));
  EXPECT_EQ(batch.teacher.order_limit, (std::vector<int32_t>{-1, 1, 4}));
}

// The newest training target always trains, the one n before it decay^n of the time; what is history stays.
TEST(ExamplesTest, OlderTargetsTrainLessOften) {
  const World world(RingLog(1, 30, 7), "decay");  // 5 training targets
  TrainOptions options = QuickOptions();
  options.epochs = 3;
  options.first_target_decay = 0.9;
  options.target_decay = 0.5;
  const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, options);
  constexpr int kDraws = 4000;
  for (const auto& [epoch, decay] : std::map<int, double>{{0, 0.9}, {1, 0.7}, {2, 0.5}, {9, 0.5}}) {
    const EpochPlan plan = examples.Plan(epoch);
    ASSERT_EQ(plan.size(), 1u);
    std::map<int32_t, int> drawn;  // by order limit: -1 the oldest target, 3 the newest
    for (int seed = 0; seed < kDraws; ++seed) {
      const ExampleBatch batch = examples.Build(plan[0], seed);
      EXPECT_EQ(batch.encoder.order.size(), 4u);
      for (int t = 0; t < batch.teacher.targets; ++t) {
        if (batch.labels[3 * t] != kNoLabel) ++drawn[batch.teacher.order_limit[t]];
      }
    }
    EXPECT_EQ(drawn[3], kDraws);
    for (int newer = 0; newer < 5; ++newer) {
      EXPECT_NEAR(static_cast<double>(drawn[3 - newer]) / kDraws, std::pow(decay, newer), 0.03)
          << "epoch " << epoch << ", " << newer << " newer targets";
    }
  }
}

TEST(ExamplesTest, BidirectionalWindowsHoldOneTargetThatSeesAll) {
  const World world(RingLog(4, 30, 9), "bidirectional", {.causal = false});
  const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, QuickOptions());
  for (const auto& windows : examples.Plan(0)) {
    const ExampleBatch batch = examples.Build(windows, 1);
    EXPECT_EQ(batch.teacher.targets, 1);
    for (int32_t limit : batch.teacher.order_limit) EXPECT_EQ(limit, backend::kSeesAllOrders);
    for (const Window& window : windows) EXPECT_EQ(window.first_target, window.last_target);
  }
}

TEST(ExamplesTest, TargetsWithLittleHistoryAreLeftOut) {
  const World world(RingLog(4, 30, 9), "min_history", {.t5 = true});  // 7 training targets per user
  for (const int least : {0, 1, 3, 7, 8}) {
    TrainOptions options = QuickOptions();
    options.min_history = least;
    const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, options);
    int windows = 0;
    for (const auto& batch : examples.Plan(0)) {
      for (const Window& window : batch) EXPECT_GE(static_cast<int>(window.last_target), least);
      windows += static_cast<int>(batch.size());
    }
    EXPECT_EQ(windows, 4 * std::max(0, 7 - least)) << least;
  }
}

// Tokens of the newest items and the end token; the end token as the last label.
TEST(ExamplesTest, T5ReadsTokensAndLabelsTheEnd) {
  const World world({{{10}, {11}, {12}, {13}, {14}, {15}, {16}, {17}, {18}}}, "t5_tokens", {.t5 = true});
  const ExampleBuilder examples(*world.corpus, *world.features, *world.snapshot, QuickOptions());
  const ExampleBatch batch = examples.Build(std::vector<Window>{{0, 6, 6}}, 1);  // item 16 after 10..15
  std::vector<int32_t> expected;
  for (const ItemId item : {11, 12, 13, 14, 15}) {  // at most 5
    for (int level = 0; level < 3; ++level) expected.push_back(4 * level + static_cast<int32_t>(SidOf(item)[level]));
  }
  expected.push_back(13);
  EXPECT_EQ(batch.encoder.pathways[model::kShortTerm].features, expected);
  const Sid target = SidOf(16);
  EXPECT_EQ(batch.labels, (std::vector<int64_t>{target[0], 4 + target[1], 8 + target[2], 13}));
}

TEST(ExamplesTest, BatchesAreFunctionsOfSeedAndEpoch) {
  const World world(RingLog(40, 30, 30), "repeat");
  const ExampleBuilder first(*world.corpus, *world.features, *world.snapshot, QuickOptions());
  const ExampleBuilder second(*world.corpus, *world.features, *world.snapshot, QuickOptions());
  const EpochPlan plan = first.Plan(4), again = second.Plan(4), other = first.Plan(5);
  ASSERT_EQ(plan.size(), again.size());
  const auto users = [](const EpochPlan& one) {
    std::vector<uint32_t> all;
    for (const auto& windows : one) {
      for (const Window& window : windows) all.push_back(window.user);
    }
    return all;
  };
  EXPECT_EQ(users(plan), users(again));
  EXPECT_NE(users(plan), users(other));
  EXPECT_EQ(first.Build(plan[0], 9).labels, second.Build(again[0], 9).labels);
  EXPECT_NE(first.Build(plan[0], 9).labels, second.Build(again[0], 10).labels);
}

}  // namespace
}  // namespace beamline::train
