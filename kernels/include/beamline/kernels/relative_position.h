// SPDX-License-Identifier: Apache-2.0
//
// T5's relative positions (1910.10683, section 2.1): the distance of a key from its query falls into one of a few
// buckets, small distances into their own, larger ones into buckets that grow with the logarithm of the distance.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace beamline::kernels {

struct RelativeBuckets {
  int32_t count = 32;          // buckets, 4 or more; where bidirectional, the last of an odd number has no use
  int32_t max_distance = 128;  // from here on, distances share the last bucket; more than the buckets with one distance
  bool bidirectional = false;  // keys after the query have the upper half of the buckets; else they count as distance 0
};

// distance = key position - query position. The logarithm is taken in fp32 and its quotient cut off, operation by
// operation as in transformers: in double a few distances on a border would fall into another bucket. (torch's own
// logarithm is not always the nearest float: of 5,800 pairs of count and max_distance, 36 with 50 and 200 with 324 have
// one distance on a border that falls otherwise there.)
inline int32_t RelativePositionBucket(int32_t distance, const RelativeBuckets& buckets) {
  int32_t count = buckets.count, first = 0;
  if (buckets.bidirectional) {
    count /= 2;
    if (distance > 0) first = count;
    distance = std::abs(distance);
  } else {
    distance = -std::min(distance, 0);
  }
  const int32_t exact = count / 2;
  if (distance < exact) return first + distance;
  const float range = static_cast<float>(std::log(static_cast<double>(buckets.max_distance) / exact));
  const float place = std::log(static_cast<float>(distance) / static_cast<float>(exact)) / range;
  const int32_t large = exact + static_cast<int32_t>(place * static_cast<float>(count - exact));
  return first + std::min(large, count - 1);
}

}  // namespace beamline::kernels
