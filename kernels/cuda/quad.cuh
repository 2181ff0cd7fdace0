// SPDX-License-Identifier: Apache-2.0
//
// Four neighbouring lanes hold a row of an accumulator (mma.cuh): of each eight columns lane q has the q-th pair. What
// they do together; all lanes of the warp call it.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/mma.cuh"

namespace beamline::kernels {

// Of the row's four values; the same in its four lanes.
template <class F>
__device__ inline float OfQuad(float x, F join) {
  x = join(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return join(x, __shfl_xor_sync(0xffffffffu, x, 2));
}
__device__ inline float QuadSum(float x) {
  return OfQuad(x, [](float a, float b) { return a + b; });
}
__device__ inline float QuadMax(float x) {
  return OfQuad(x, [](float a, float b) { return fmaxf(a, b); });
}

// Of four eights of columns lane q gives its pairs, pair(eight), and gets all of the q-th eight, as 16-bit values of T:
// so that a lane stores 16 bytes, not four times four.
template <class T, class F>
__device__ inline uint4 GatherEights(F pair) {
  uint32_t pairs[4];
#pragma unroll
  for (int eight = 0; eight < 4; ++eight) {
    const float2 of_lane = pair(eight);
    pairs[eight] = Pack<T>(of_lane.x, of_lane.y);
  }
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool upper = (threadIdx.x & distance) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((i & distance) != 0) continue;
      uint32_t &low = pairs[i], &high = pairs[i + distance];
      const uint32_t other = __shfl_xor_sync(0xffffffffu, upper ? low : high, distance);
      (upper ? low : high) = other;
    }
  }
  return {pairs[0], pairs[1], pairs[2], pairs[3]};
}

}  // namespace beamline::kernels
