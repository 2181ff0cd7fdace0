// SPDX-License-Identifier: Apache-2.0
#include "sid/collision_free.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include <gtest/gtest.h>

#include "sid/centroid_search.h"
#include "sid/linear_assignment.h"
#include "sid/sid_test_util.h"

namespace beamline::sid {
namespace {

double Best(const std::vector<float>& costs, int64_t rows, int64_t columns, int64_t row, std::vector<int64_t>& room) {
  if (row == rows) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (int64_t c = 0; c < columns; ++c) {
    if (room[c] == 0) continue;
    --room[c];
    best = std::min(best, costs[row * columns + c] + Best(costs, rows, columns, row + 1, room));
    ++room[c];
  }
  return best;
}

TEST(DealCodes, IsTheCheapestDealOfAll) {
  std::mt19937 engine(7);
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t size = 1 + engine() % 5;
    const int64_t capacity = 1 + engine() % 3;
    const int64_t items = 1 + engine() % std::min<int64_t>(6, size * capacity);
    std::vector<float> costs(items * size);
    // Small whole numbers, negative ones too, so that ties are common.
    for (float& cost : costs) cost = static_cast<float>(static_cast<int>(engine() % 9) - 4);
    const std::vector<uint32_t> codes = DealCodes(costs, items, size, capacity);
    std::vector<int64_t> counts(size, 0);
    double cost = 0;
    for (int64_t i = 0; i < items; ++i) {
      ASSERT_LT(codes[i], size);
      ASSERT_LE(++counts[codes[i]], capacity);
      cost += costs[i * size + codes[i]];
    }
    std::vector<int64_t> room(size, capacity);
    EXPECT_DOUBLE_EQ(cost, Best(costs, items, size, 0, room)) << "trial " << trial;
  }
}

struct Fixture {
  FloatMatrix residuals;
  FloatMatrix centroids;
  std::vector<Sid> sids;
};

Fixture Make(int64_t n, uint32_t prefixes, int64_t size, uint64_t seed) {
  Fixture fixture{ClusteredVectors(n, 4, 5, 0.3f, seed), ClusteredVectors(size, 4, 5, 0.3f, seed + 1), {}};
  std::mt19937 engine(seed);
  for (int64_t i = 0; i < n; ++i) fixture.sids.push_back(Sid{static_cast<Code>(engine() % prefixes), 0});
  return fixture;
}

std::map<Sid, int64_t> Counts(const std::vector<Sid>& sids) {
  std::map<Sid, int64_t> counts;
  for (const Sid& sid : sids) ++counts[sid];
  return counts;
}

TEST(RemoveCollisions, LeavesAtMostCapacityItemsAndKeepsPrefixes) {
  for (const int64_t capacity : {1, 2, 3}) {
    const Fixture fixture = Make(600, 40, 32, 9);
    std::vector<Sid> sids = fixture.sids;
    CollisionFreeProblem problem{&fixture.residuals, &fixture.centroids, capacity};
    const auto moved = RemoveCollisions(problem, sids, nullptr);
    ASSERT_TRUE(moved.ok());
    for (const auto& [sid, count] : Counts(sids)) EXPECT_LE(count, capacity) << sid.ToString();
    const std::vector<uint32_t> nearest =
        AssignNearest(CentroidSearch(fixture.centroids), fixture.residuals, nullptr).codes;
    int64_t differ = 0;
    for (size_t i = 0; i < sids.size(); ++i) {
      EXPECT_EQ(sids[i][0], fixture.sids[i][0]);
      differ += sids[i][1] != nearest[i] ? 1 : 0;
    }
    EXPECT_EQ(*moved, differ);
    EXPECT_GT(*moved, 0);
  }
}

TEST(RemoveCollisions, ThreadsDoNotMatter) {
  const Fixture fixture = Make(600, 20, 32, 11);
  std::vector<Sid> a = fixture.sids;
  std::vector<Sid> b = fixture.sids;
  CollisionFreeProblem problem{&fixture.residuals, &fixture.centroids, 1};
  ThreadPool pool(3);
  ASSERT_TRUE(RemoveCollisions(problem, a, nullptr).ok());
  ASSERT_TRUE(RemoveCollisions(problem, b, &pool).ok());
  EXPECT_EQ(a, b);
}

TEST(RemoveCollisions, PrefixesWithoutRoomAreFilledEvenly) {
  const Fixture fixture = Make(100, 1, 8, 13);
  std::vector<Sid> sids = fixture.sids;
  ASSERT_TRUE(RemoveCollisions({&fixture.residuals, &fixture.centroids, 1}, sids, nullptr).ok());
  EXPECT_EQ(Counts(sids).size(), 8u);
  for (const auto& [sid, count] : Counts(sids)) {
    EXPECT_LE(count, 13) << sid.ToString();
    EXPECT_GE(count, 12) << sid.ToString();
  }
}

// More items than the exact solver takes: the greedy path must hold the same promise.
TEST(RemoveCollisions, LargePrefixes) {
  const Fixture fixture = Make(kExactGroup + 500, 1, 2048, 15);
  std::vector<Sid> sids = fixture.sids;
  ASSERT_TRUE(RemoveCollisions({&fixture.residuals, &fixture.centroids, 1}, sids, nullptr).ok());
  EXPECT_EQ(Counts(sids).size(), sids.size());
}

TEST(RemoveCollisions, MoveLimitKeepsItemsAtTheirNearestCode) {
  const Fixture fixture = Make(600, 40, 32, 17);
  CollisionFreeProblem problem{&fixture.residuals, &fixture.centroids, 1, 0.0};
  std::vector<Sid> none = fixture.sids;
  EXPECT_EQ(*RemoveCollisions(problem, none, nullptr), 0);
  problem.max_move_error = 1.0;
  std::vector<Sid> some = fixture.sids;
  const int64_t limited = *RemoveCollisions(problem, some, nullptr);
  problem.max_move_error = 1e30;
  std::vector<Sid> all = fixture.sids;
  const int64_t unlimited = *RemoveCollisions(problem, all, nullptr);
  EXPECT_GT(limited, 0);
  EXPECT_LT(limited, unlimited);
}

TEST(SolveAssignment, RowsGetDistinctColumnsOnALargeProblem) {
  std::mt19937 engine(3);
  std::vector<float> costs(200 * 300);
  for (float& cost : costs) cost = static_cast<float>(engine() % 1000);
  std::vector<int64_t> columns = SolveAssignment(costs, 200, 300);
  std::sort(columns.begin(), columns.end());
  EXPECT_EQ(std::unique(columns.begin(), columns.end()), columns.end());
  EXPECT_GE(columns.front(), 0);
  EXPECT_LT(columns.back(), 300);
}

}  // namespace
}  // namespace beamline::sid
