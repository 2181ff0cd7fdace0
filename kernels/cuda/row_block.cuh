// SPDX-License-Identifier: Apache-2.0
//
// One block of threads for one row: reductions in an order that depends on the number of threads alone, and the
// quantisation of a row.
#pragma once

#include <cfloat>

#include <cuda_fp8.h>
#include <cuda_runtime.h>

#include "cuda/vector.cuh"

namespace beamline::kernels {

inline constexpr int kRowThreads = 128;
inline constexpr int kRowWarps = kRowThreads / 32;

// Sum, or maximum of values >= 0, over the block; the same in every thread. `scratch` is used by one reduction at a
// time.
__device__ inline float BlockSum(float x, float (&scratch)[kRowWarps]) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (float part : scratch) sum += part;
  return sum;
}

__device__ inline float BlockMax(float x, float (&scratch)[kRowWarps]) {
  for (int offset = 16; offset > 0; offset /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, offset));
  __syncthreads();
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
  __syncthreads();
  float max = 0;
#pragma unroll
  for (float part : scratch) max = fmaxf(max, part);
  return max;
}

inline constexpr float kMaxE4M3 = 448.0f;

// Of a normal number: the scale of a row whose values are next to nothing would be zero, and 0 / 0 a NaN among them.
__device__ inline float QuantizationScale(float largest) {
  return largest > 0.0f ? fmaxf(largest / kMaxE4M3, FLT_MIN) : 1.0f;
}

__device__ inline void StoreQuantized(uint8_t* to, const float (&from)[kVector], float row_scale) {
  uint2 packed;
  uint8_t bytes[kVector];
#pragma unroll
  for (int i = 0; i < kVector; ++i) bytes[i] = __nv_cvt_float_to_fp8(from[i] / row_scale, __NV_SATFINITE, __NV_E4M3);
  __builtin_memcpy(&packed, bytes, sizeof(packed));
  *reinterpret_cast<uint2*>(to) = packed;
}

}  // namespace beamline::kernels
