// SPDX-License-Identifier: Apache-2.0
#include "engine/cost_measurement.h"

#include <memory>
#include <vector>

#include "engine/fake_runner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

constexpr absl::Duration kCostMs = absl::Milliseconds(1);

class CostMeasurementTest : public ::testing::Test {
 protected:
  std::vector<int64_t> Sizes(const std::vector<scheduler::BatchCost>& costs, scheduler::WorkKind kind) {
    std::vector<int64_t> sizes;
    for (const scheduler::BatchCost& cost : costs) {
      if (cost.kind == kind) sizes.push_back(cost.size.requests);
    }
    return sizes;
  }

  FakeClock clock_;
  FakeRunner runner_{MakeCatalogue(50), &clock_, &clock_};  // encode 1 ms, three steps of 1 ms
};

TEST_F(CostMeasurementTest, MeasuresBothKindsForGrowingBatches) {
  const auto costs = MeasureCosts(runner_, {.beam_width = 8, .max_requests = 20, .budget = absl::Seconds(1)}, clock_);
  EXPECT_THAT(Sizes(costs, scheduler::WorkKind::kEncode), ::testing::ElementsAre(1, 2, 4, 8, 16));
  EXPECT_EQ(Sizes(costs, scheduler::WorkKind::kDecode), Sizes(costs, scheduler::WorkKind::kEncode));
  for (const scheduler::BatchCost& cost : costs) {
    EXPECT_EQ(cost.duration, cost.kind == scheduler::WorkKind::kEncode ? kCostMs : 3 * kCostMs);
    EXPECT_EQ(cost.size.rows, 8 * cost.size.requests);
  }
  EXPECT_EQ(runner_.decoded.load(), 2 * (1 + 2 + 4 + 8 + 16)) << "twice each";
}

TEST_F(CostMeasurementTest, RowsLimitABatchToo) {
  const auto costs = MeasureCosts(runner_, {.beam_width = 8, .max_requests = 64, .max_rows = 40}, clock_);
  EXPECT_THAT(Sizes(costs, scheduler::WorkKind::kDecode), ::testing::ElementsAre(1, 2, 4));
}

TEST_F(CostMeasurementTest, MeasuresTheWidestBeamsToo) {
  const auto costs = MeasureCosts(
      runner_, {.beam_width = 8, .max_beam_width = 100, .max_requests = 4, .max_rows = 300, .budget = absl::Seconds(1)},
      clock_);
  std::vector<int64_t> rows;
  for (const scheduler::BatchCost& cost : costs) {
    if (cost.kind == scheduler::WorkKind::kDecode) rows.push_back(cost.size.rows);
  }
  EXPECT_THAT(rows, ::testing::ElementsAre(8, 100, 16, 32, 300));
}

TEST_F(CostMeasurementTest, StopsWhenTheBudgetIsSpent) {
  const auto costs = MeasureCosts(runner_, {.beam_width = 8, .budget = 10 * kCostMs}, clock_);
  EXPECT_THAT(Sizes(costs, scheduler::WorkKind::kDecode), ::testing::ElementsAre(1, 2)) << "8 ms, and 4 of 8 more";
  EXPECT_TRUE(MeasureCosts(runner_, {.budget = absl::ZeroDuration()}, clock_).empty());
}

TEST_F(CostMeasurementTest, TakesTheLesserOfTwoRuns) {
  bool first = true;
  runner_.before_step = [&](int) {
    if (std::exchange(first, false)) clock_.Advance(100 * kCostMs);
  };
  const auto costs = MeasureCosts(runner_, {.beam_width = 8, .max_requests = 1, .budget = absl::Seconds(1)}, clock_);
  ASSERT_EQ(costs.size(), 2u);
  EXPECT_EQ(costs[1].duration, 3 * kCostMs);
}

}  // namespace
}  // namespace beamline::engine
