// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/relative_position.h"

#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace beamline::kernels {
namespace {

// Where each bucket begins, from distance -400 up; as transformers' T5Attention._relative_position_bucket gives it.
struct Case {
  RelativeBuckets buckets;
  std::vector<std::pair<int32_t, int32_t>> begins;  // (first distance, bucket)
};

const Case kCases[] = {
    {{32, 128, true},
     {{-400, 15}, {-90, 14}, {-63, 13}, {-45, 12}, {-31, 11}, {-22, 10}, {-15, 9}, {-11, 8}, {-7, 7}, {-6, 6}, {-5, 5},
      {-4, 4},    {-3, 3},   {-2, 2},   {-1, 1},   {0, 0},    {1, 17},   {2, 18},  {3, 19},  {4, 20}, {5, 21}, {6, 22},
      {7, 23},    {8, 24},   {12, 25},  {16, 26},  {23, 27},  {32, 28},  {46, 29}, {64, 30}, {91, 31}}},
    {{8, 20, true}, {{-400, 3}, {-6, 2}, {-1, 1}, {0, 0}, {1, 5}, {2, 6}, {7, 7}}},
    {{12, 300, true},
     {{-400, 5}, {-64, 4}, {-13, 3}, {-2, 2}, {-1, 1}, {0, 0}, {1, 7}, {2, 8}, {3, 9}, {14, 10}, {65, 11}}},
    {{13, 40, true},  // odd: six to either side, the thirteenth unused
     {{-400, 5}, {-16, 4}, {-7, 3}, {-2, 2}, {-1, 1}, {0, 0}, {1, 7}, {2, 8}, {3, 9}, {8, 10}, {17, 11}}},
    {{13, 40, false},
     {{-400, 12},
      {-30, 11},
      {-23, 10},
      {-17, 9},
      {-13, 8},
      {-10, 7},
      {-7, 6},
      {-5, 5},
      {-4, 4},
      {-3, 3},
      {-2, 2},
      {-1, 1},
      {0, 0}}},
    {{5, 300, true}, {{-400, 1}, {0, 0}, {1, 3}}},
    {{32, 128, false}, {{-400, 31}, {-112, 30}, {-98, 29}, {-86, 28}, {-76, 27}, {-66, 26}, {-58, 25}, {-51, 24},
                        {-45, 23},  {-39, 22},  {-34, 21}, {-30, 20}, {-26, 19}, {-23, 18}, {-20, 17}, {-18, 16},
                        {-15, 15},  {-14, 14},  {-13, 13}, {-12, 12}, {-11, 11}, {-10, 10}, {-9, 9},   {-8, 8},
                        {-7, 7},    {-6, 6},    {-5, 5},   {-4, 4},   {-3, 3},   {-2, 2},   {-1, 1},   {0, 0}}},
    {{8, 20, false}, {{-400, 7}, {-13, 6}, {-8, 5}, {-5, 4}, {-3, 3}, {-2, 2}, {-1, 1}, {0, 0}}},
    {{12, 300, false},
     {{-400, 11},
      {-156, 10},
      {-81, 9},
      {-42, 8},
      {-22, 7},
      {-11, 6},
      {-5, 5},
      {-4, 4},
      {-3, 3},
      {-2, 2},
      {-1, 1},
      {0, 0}}},
};

TEST(RelativePosition, BucketsAreThoseOfTransformers) {
  for (const Case& c : kCases) {
    size_t run = 0;
    for (int32_t distance = -400; distance <= 400; ++distance) {
      if (run + 1 < c.begins.size() && c.begins[run + 1].first == distance) ++run;
      ASSERT_EQ(RelativePositionBucket(distance, c.buckets), c.begins[run].second)
          << distance << " of " << c.buckets.count << " to " << c.buckets.max_distance << c.buckets.bidirectional;
    }
    EXPECT_EQ(run + 1, c.begins.size());
  }
}

}  // namespace
}  // namespace beamline::kernels
