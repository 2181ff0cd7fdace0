// SPDX-License-Identifier: Apache-2.0
#include "engine/cost_measurement.h"

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/fake_runner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

constexpr absl::Duration kCostMs = absl::Milliseconds(1);

class CostMeasurementTest : public ::testing::Test {
 protected:
  std::vector<scheduler::BatchCost> Measured(const CostMeasurement& measurement) {
    const auto costs = MeasureCosts(runner_, measurement, clock_);
    EXPECT_TRUE(costs.ok()) << costs.status();
    return costs.value_or(std::vector<scheduler::BatchCost>());
  }
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
  const auto costs = Measured({.beam_width = 8, .max_requests = 20, .budget = absl::Seconds(1)});
  EXPECT_THAT(Sizes(costs, scheduler::WorkKind::kEncode), ::testing::ElementsAre(1, 2, 4, 8, 16));
  EXPECT_EQ(Sizes(costs, scheduler::WorkKind::kDecode), Sizes(costs, scheduler::WorkKind::kEncode));
  for (const scheduler::BatchCost& cost : costs) {
    EXPECT_EQ(cost.duration, cost.kind == scheduler::WorkKind::kEncode ? kCostMs : 3 * kCostMs);
    EXPECT_EQ(cost.size.rows, 8 * cost.size.requests);
  }
  EXPECT_EQ(runner_.decoded.load(), 2 * (1 + 2 + 4 + 8 + 16)) << "twice each";
}

TEST_F(CostMeasurementTest, RowsLimitABatchToo) {
  const auto costs = Measured({.beam_width = 8, .max_requests = 64, .max_rows = 40});
  EXPECT_THAT(Sizes(costs, scheduler::WorkKind::kDecode), ::testing::ElementsAre(1, 2, 4));
}

TEST_F(CostMeasurementTest, MeasuresTheWidestBeamsToo) {
  const auto costs = Measured(
      {.beam_width = 8, .max_beam_width = 100, .max_requests = 4, .max_rows = 300, .budget = absl::Seconds(1)});
  std::vector<int64_t> rows;
  for (const scheduler::BatchCost& cost : costs) {
    if (cost.kind == scheduler::WorkKind::kDecode) rows.push_back(cost.size.rows);
  }
  EXPECT_THAT(rows, ::testing::ElementsAre(8, 100, 16, 32, 300));
}

TEST_F(CostMeasurementTest, StopsWhenTheBudgetIsSpent) {
  const auto costs = Measured({.beam_width = 8, .budget = 10 * kCostMs});
  EXPECT_THAT(Sizes(costs, scheduler::WorkKind::kDecode), ::testing::ElementsAre(1, 2)) << "8 ms, and 4 of 8 more";
  EXPECT_TRUE(Measured({.budget = absl::ZeroDuration()}).empty());
}

TEST_F(CostMeasurementTest, TakesTheLesserOfTwoRuns) {
  bool first = true;
  runner_.before_step = [&](int) {
    if (std::exchange(first, false)) clock_.Advance(100 * kCostMs);
  };
  const auto costs = Measured({.beam_width = 8, .max_requests = 1, .budget = absl::Seconds(1)});
  ASSERT_EQ(costs.size(), 2u);
  EXPECT_EQ(costs[1].duration, 3 * kCostMs);
}

// On a GPU the first run of a size goes op by op, and the second pays for the graph.
TEST_F(CostMeasurementTest, TakesARunOfABatchThatIsWarm) {
  runner_.until_warm = 2;
  std::map<size_t, int> runs;  // by size
  size_t now = 0;
  runner_.before_encode = [&](size_t requests) { ++runs[now = requests]; };
  runner_.before_step = [&](int level) {
    if (level == 0 && runs[now] < 3) clock_.Advance(100 * kCostMs);
  };
  const auto costs = Measured({.beam_width = 8, .max_requests = 2, .budget = absl::Seconds(1)});
  ASSERT_EQ(costs.size(), 4u);
  EXPECT_EQ(costs[1].duration, 3 * kCostMs);
  EXPECT_EQ(costs[3].duration, 3 * kCostMs);
}

TEST_F(CostMeasurementTest, ASizeThatTheBudgetLeavesColdIsNoCost) {
  runner_.until_warm = 2;
  runner_.before_step = [&, step = 0](int) mutable {
    if (step++ == 3 * 3) clock_.Advance(100 * kCostMs);  // the first run of the second size
  };
  const auto costs = Measured({.beam_width = 8, .max_requests = 4, .budget = 50 * kCostMs});
  EXPECT_THAT(Sizes(costs, scheduler::WorkKind::kDecode), ::testing::ElementsAre(1));
}

TEST_F(CostMeasurementTest, ASizeCostsNoMoreThanALargerOne) {
  int runs = 0;
  runner_.before_step = [&](int level) {
    if (level == 0 && runs++ < 2) clock_.Advance(100 * kCostMs);  // a pause in both runs of the first size
  };
  const auto costs = Measured({.beam_width = 8, .max_requests = 2, .budget = absl::Seconds(1)});
  ASSERT_EQ(costs.size(), 4u);
  EXPECT_EQ(costs[1].duration, 3 * kCostMs);
  EXPECT_EQ(costs[3].duration, 3 * kCostMs);
}

TEST_F(CostMeasurementTest, ASizeMayCostMoreThanASmallerOne) {
  int runs = 0;
  runner_.before_step = [&](int level) {
    if (level == 0 && runs++ >= 2) clock_.Advance(5 * kCostMs);
  };
  const auto costs = Measured({.beam_width = 8, .max_requests = 2, .budget = absl::Seconds(1)});
  ASSERT_EQ(costs.size(), 4u);
  EXPECT_EQ(costs[1].duration, 3 * kCostMs);
  EXPECT_EQ(costs[3].duration, 8 * kCostMs);
}

TEST_F(CostMeasurementTest, AColdFirstRunBeyondTheBudgetIsNoCost) {
  bool first = true;
  runner_.before_step = [&](int) {
    if (std::exchange(first, false)) clock_.Advance(100 * kCostMs);
  };
  const auto costs = Measured({.beam_width = 8, .max_requests = 4, .budget = 50 * kCostMs});
  ASSERT_EQ(costs.size(), 2u) << "no time is left for a second batch";
  EXPECT_EQ(costs[1].duration, 3 * kCostMs);
}

TEST_F(CostMeasurementTest, ABatchThatFailsIsAnError) {
  runner_.fails = [](size_t requests) {
    return requests == 4 ? absl::ResourceExhaustedError("decode: out of memory") : absl::OkStatus();
  };
  const CostMeasurement measurement{.beam_width = 8, .max_requests = 8, .budget = absl::Seconds(1)};
  EXPECT_EQ(MeasureCosts(runner_, measurement, clock_).status(),
            absl::ResourceExhaustedError("a batch of 4 requests with 8 beams each: decode: out of memory"));
}

// On a device it is run whatever the budget; on the host, whose memory gives way, a load is not to take longer.
TEST_F(CostMeasurementTest, TheLargestBatchIsTriedOnADeviceOutsideOfTheBudget) {
  const CostMeasurement measurement{
      .beam_width = 8, .max_beam_width = 20, .max_requests = 6, .max_rows = 100, .budget = absl::ZeroDuration()};
  EXPECT_TRUE(Measured(measurement).empty());
  EXPECT_EQ(runner_.decoded.load(), 0);
  runner_.device_memory = DeviceMemory{.total = 100, .free = 100};
  EXPECT_TRUE(Measured(measurement).empty());
  EXPECT_EQ(runner_.encoded.load(), 6);
  EXPECT_EQ(runner_.decoded.load(), 6);
  EXPECT_EQ(runner_.decoded_rows.load(), 6 * 16) << "100 rows among 6";

  runner_.fails = [](size_t) { return absl::ResourceExhaustedError("decode: out of memory"); };
  const absl::Status refused = MeasureCosts(runner_, measurement, clock_).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.message()),
              ::testing::AllOf(::testing::StartsWith("the largest batch that is allowed, 6 requests with 96 beam rows"),
                               ::testing::HasSubstr("decode: out of memory; lower max_batch_requests")));
}

// As the scheduler does it: what is too long for one encode batch is encoded in several.
TEST_F(CostMeasurementTest, TheLargestBatchIsEncodedByTheSchedulersLimit) {
  runner_.device_memory = DeviceMemory{.total = 100, .free = 100};
  runner_.info_.window_lengths = {30'000};
  size_t most = 0;
  runner_.before_encode = [&](size_t requests) { most = std::max(most, requests); };
  Measured({.beam_width = 8, .max_requests = 5, .budget = absl::ZeroDuration()});
  EXPECT_EQ(runner_.encoded.load(), 5);
  EXPECT_EQ(most, 2u) << "of 30,000 tokens each in 65,536";
}

}  // namespace
}  // namespace beamline::engine
