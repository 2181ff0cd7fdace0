// SPDX-License-Identifier: Apache-2.0
//
// Bodies of the row loops, inlined into one function per instruction set by row_ops.cc, which alone includes this file.
// Plain restrict loops over fixed-size blocks: the vectoriser does the rest. Every reduction is written as elementwise
// steps over an array of lanes, because a compiler may not reorder floating-point sums, and we do not want it to.
#pragma once

#include <cstdint>
#include <limits>

#include "beamline/kernels/exp_non_positive.h"
#include "cpu/row_ops.h"

#define BEAMLINE_INLINE static inline __attribute__((always_inline))

namespace beamline::kernels::body {

inline constexpr int kLanes = 32;      // of the running maximum
inline constexpr int kSumBlock = 128;  // exponentials added pairwise in fp32
inline constexpr int kSumLanes = 16;
inline constexpr int kCacheLine = 16;  // in floats

BEAMLINE_INLINE bool Scan(const float* __restrict row, int count, float* __restrict max) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float lanes[kLanes];
  int32_t bad[kLanes];
  for (int i = 0; i < kLanes; ++i) lanes[i] = -kInfinity;
  for (int i = 0; i < kLanes; ++i) bad[i] = 0;
  int at = 0;
  for (; at + kLanes <= count; at += kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      const float x = row[at + i];
      lanes[i] = lanes[i] < x ? x : lanes[i];
      bad[i] |= x < kInfinity ? 0 : 1;  // NaN compares false
    }
  }
  for (; at < count; ++at) {
    const float x = row[at];
    lanes[0] = lanes[0] < x ? x : lanes[0];
    bad[0] |= x < kInfinity ? 0 : 1;
  }
  float largest = -kInfinity;
  int32_t any = 0;
  for (int i = 0; i < kLanes; ++i) {
    largest = largest < lanes[i] ? lanes[i] : largest;
    any |= bad[i];
  }
  *max = largest;
  return any == 0;
}

// The sum of exp(row[i] - max) over a block: halves are added to each other until one value is left. Down to kSumLanes
// values nothing is stored between the halves.
template <class Fused>
BEAMLINE_INLINE float SumExpBlock(const float* __restrict row, float max) {
  static_assert(kSumBlock == 8 * kSumLanes);
  float sums[kSumLanes];
  for (int i = 0; i < kSumLanes; ++i) {
    const auto term = [&](int part) __attribute__((always_inline)) {
      return ExpNonPositive<Fused>(row[i + part * kSumLanes] - max);
    };
    sums[i] = ((term(0) + term(4)) + (term(2) + term(6))) + ((term(1) + term(5)) + (term(3) + term(7)));
  }
  for (int half = kSumLanes / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) sums[i] += sums[i + half];
  }
  return sums[0];
}

template <class Fused>
BEAMLINE_INLINE double SumExp(const float* __restrict row, int count, float max, const float* ahead) {
  double sum = 0;
  int at = 0;
  for (; at + kSumBlock <= count; at += kSumBlock) {
    for (int i = 0; i < kSumBlock; i += kCacheLine) __builtin_prefetch(ahead + at + i);
    sum += SumExpBlock<Fused>(row + at, max);
  }
  if (at < count) {
    float rest[kSumBlock];
    for (int i = 0; i < kSumBlock; ++i) rest[i] = i < count - at ? row[at + i] - max : -128.0f;  // adds 0
    sum += SumExpBlock<Fused>(rest, 0);
  }
  return sum;
}

BEAMLINE_INLINE void Gather(const float* __restrict row, const uint16_t* __restrict codes, int count,
                            float* __restrict out) {
  for (int i = 0; i < count; ++i) out[i] = row[codes[i]];
}

BEAMLINE_INLINE bool Score(const ScoreArgs& args) {
  const float* __restrict row = args.row;
  const uint16_t* __restrict codes = args.codes;
  float* __restrict log_probs = args.log_probs;
  float* __restrict scores = args.scores;
  const int count = args.count;
  const float max = args.scale.max, log_sum = args.scale.log_sum, parent_score = args.scale.parent_score;
  const float threshold = args.threshold;
  // A parent with children of consecutive codes (dense upper levels) needs no gather.
  if (codes[count - 1] - codes[0] == count - 1) {
    const float* __restrict dense = row + codes[0];
    for (int i = 0; i < count; ++i) log_probs[i] = (dense[i] - max) - log_sum;
  } else {
    for (int i = 0; i < count; ++i) log_probs[i] = (row[codes[i]] - max) - log_sum;
  }
  int32_t any = 0;
  for (int i = 0; i < count; ++i) {
    scores[i] = parent_score + log_probs[i];
    any |= scores[i] >= threshold ? 1 : 0;
  }
  return any != 0;
}

}  // namespace beamline::kernels::body
