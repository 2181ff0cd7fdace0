// SPDX-License-Identifier: Apache-2.0
#include "sid/balance.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "sid/linear_assignment.h"
#include "sid/sid_test_util.h"

namespace beamline::sid {
namespace {

double Cost(const FloatMatrix& points, const FloatMatrix& centroids, const std::vector<uint32_t>& codes) {
  double cost = 0;
  for (int64_t i = 0; i < points.rows; ++i) {
    for (int64_t d = 0; d < points.cols; ++d) {
      const double difference = double{points.row(i)[d]} - centroids.row(codes[i])[d];
      cost += difference * difference;
    }
  }
  return cost;
}

TEST(Balance, CapacityHoldsAndNothingMovesWithoutNeed) {
  for (uint64_t seed = 0; seed < 8; ++seed) {
    const int64_t n = 500 + 37 * static_cast<int64_t>(seed);
    const FloatMatrix points = ClusteredVectors(n, 4, 6, 0.3f, seed);
    const FloatMatrix centroids = ClusteredVectors(23, 4, 6, 0.3f, seed + 100);
    const CentroidSearch search(centroids);
    const std::vector<uint32_t> nearest = AssignNearest(search, points, nullptr).codes;
    for (const int64_t capacity : {(n + 22) / 23, n / 10, n}) {
      std::vector<uint32_t> codes = nearest;
      ASSERT_TRUE(EnforceCapacity({search, points, capacity}, codes, nullptr).ok());
      const std::vector<int64_t> before = CountCodes(nearest, 23);
      const std::vector<int64_t> counts = CountCodes(codes, 23);
      EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), n);
      EXPECT_LE(*std::max_element(counts.begin(), counts.end()), capacity);
      int64_t moved = 0;
      for (int64_t i = 0; i < n; ++i) moved += codes[i] != nearest[i] ? 1 : 0;
      int64_t surplus = 0;
      for (const int64_t count : before) surplus += std::max<int64_t>(0, count - capacity);
      EXPECT_EQ(moved, surplus);
    }
  }
}

TEST(Balance, ThreadsDoNotMatter) {
  const FloatMatrix points = ClusteredVectors(3000, 8, 6, 0.3f, 1);
  const CentroidSearch search(ClusteredVectors(40, 8, 6, 0.3f, 2));
  std::vector<uint32_t> inline_codes = AssignNearest(search, points, nullptr).codes;
  std::vector<uint32_t> pool_codes = inline_codes;
  ThreadPool pool(3);
  ASSERT_TRUE(EnforceCapacity({search, points, 75}, inline_codes, nullptr).ok());
  ASSERT_TRUE(EnforceCapacity({search, points, 75}, pool_codes, &pool).ok());
  EXPECT_EQ(inline_codes, pool_codes);
}

// Against the exact solution of the same problem, every code repeated `capacity` times.
TEST(Balance, CostIsCloseToTheOptimum) {
  for (uint64_t seed = 0; seed < 5; ++seed) {
    const FloatMatrix points = ClusteredVectors(120, 4, 6, 0.5f, seed);
    const FloatMatrix centroids = ClusteredVectors(10, 4, 6, 0.5f, seed + 50);
    const CentroidSearch search(centroids);
    std::vector<uint32_t> codes = AssignNearest(search, points, nullptr).codes;
    const double nearest = Cost(points, centroids, codes);
    ASSERT_TRUE(EnforceCapacity({search, points, 12}, codes, nullptr).ok());
    std::vector<float> costs;
    for (int64_t i = 0; i < 120; ++i) {
      for (int64_t place = 0; place < 120; ++place) {
        float distance = 0;
        for (int64_t d = 0; d < 4; ++d) {
          const float difference = points.row(i)[d] - centroids.row(place / 12)[d];
          distance += difference * difference;
        }
        costs.push_back(distance);
      }
    }
    std::vector<uint32_t> best;
    for (const int64_t place : SolveAssignment(costs, 120, 120)) best.push_back(static_cast<uint32_t>(place / 12));
    const double optimum = Cost(points, centroids, best);
    EXPECT_GE(Cost(points, centroids, codes), optimum * (1 - 1e-5));
    EXPECT_LT(Cost(points, centroids, codes), 1.5 * optimum) << "nearest " << nearest << ", seed " << seed;
  }
}

TEST(Balance, CapacityAlwaysFits) {
  EXPECT_EQ(CodeCapacity(10, 3, 1.0), 4);
  EXPECT_EQ(CodeCapacity(9, 3, 1.0), 3);
  EXPECT_EQ(CodeCapacity(10, 3, 1.5), 5);
  EXPECT_EQ(CodeCapacity(1, 3, 1.0), 1);
}

TEST(Balance, InterruptStops) {
  const FloatMatrix points = ClusteredVectors(100, 2, 2, 0.3f, 3);
  const CentroidSearch search(ClusteredVectors(4, 2, 2, 0.3f, 4));
  std::vector<uint32_t> codes(100, 0);
  SetInterrupted(true);
  const absl::Status status = EnforceCapacity({search, points, 25}, codes, nullptr);
  SetInterrupted(false);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace beamline::sid
