// SPDX-License-Identifier: Apache-2.0
#include "sid/balance.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "base/interrupt.h"
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
      ASSERT_TRUE(EnforceCapacity(search, points, capacity, codes, nullptr).ok());
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
  ASSERT_TRUE(EnforceCapacity(search, points, 75, inline_codes, nullptr).ok());
  ASSERT_TRUE(EnforceCapacity(search, points, 75, pool_codes, &pool).ok());
  EXPECT_EQ(inline_codes, pool_codes);
}

// Prices must bring loads close to equal, and the exact balancing after them must cost less than without them.
TEST(Balance, PricesEqualizeLoadsCheaply) {
  const int64_t n = 4000;
  const FloatMatrix points = ClusteredVectors(n, 8, 12, 0.6f, 3);
  const FloatMatrix centroids = ClusteredVectors(32, 8, 12, 0.6f, 4);
  const CentroidSearch plain(centroids);
  const Assignment nearest = AssignNearest(plain, points, nullptr);
  double mean = 0;
  for (const float distance : nearest.distances) mean += distance / static_cast<double>(n);
  PriceBalancer balancer(32, 0.01 * mean);
  std::vector<uint32_t> codes = nearest.codes;
  for (int round = 0; round < 80; ++round) {
    balancer.Update(CountCodes(codes, 32));
    codes = AssignNearest(CentroidSearch(centroids, balancer.prices()), points, nullptr).codes;
  }
  const std::vector<int64_t> counts = CountCodes(codes, 32);
  const std::vector<int64_t> before = CountCodes(nearest.codes, 32);
  EXPECT_GT(*std::max_element(before.begin(), before.end()), 3 * n / 32) << "the test needs uneven loads";
  EXPECT_LT(*std::max_element(counts.begin(), counts.end()), 1.1 * n / 32);
  EXPECT_GT(*std::min_element(counts.begin(), counts.end()), 0.9 * n / 32);

  std::vector<uint32_t> without = nearest.codes;
  ASSERT_TRUE(EnforceCapacity(plain, points, n / 32, without, nullptr).ok());
  ASSERT_TRUE(EnforceCapacity(CentroidSearch(centroids, balancer.prices()), points, n / 32, codes, nullptr).ok());
  EXPECT_LT(Cost(points, centroids, codes), Cost(points, centroids, without));
}

TEST(Balance, InterruptStops) {
  const FloatMatrix points = ClusteredVectors(100, 2, 2, 0.3f, 3);
  const CentroidSearch search(ClusteredVectors(4, 2, 2, 0.3f, 4));
  std::vector<uint32_t> codes(100, 0);
  SetInterrupted(true);
  const absl::Status status = EnforceCapacity(search, points, 25, codes, nullptr);
  SetInterrupted(false);
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace beamline::sid
