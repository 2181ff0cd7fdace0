// SPDX-License-Identifier: Apache-2.0
//
// Eight values of a row at a time: 16 bytes of bf16 or fp16, two times 16 bytes of fp32, as floats.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace beamline::kernels {

inline constexpr int kVector = 8;

__device__ inline float ToFloat(float x) { return x; }
__device__ inline float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ inline float ToFloat(__half x) { return __half2float(x); }

template <class T>
__device__ inline T FromFloat(float x) {
  if constexpr (__is_same(T, float)) {
    return x;
  } else if constexpr (__is_same(T, __nv_bfloat16)) {
    return __float2bfloat16_rn(x);
  } else {
    return __float2half_rn(x);
  }
}

// Eight values as they lie in memory: for whoever has several loads under way.
template <class T>
struct PackedVector {
  uint4 raw[sizeof(T) / 2];

  // REQUIRES: 16-byte alignment.
  __device__ void Load(const T* from) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) raw[i] = reinterpret_cast<const uint4*>(from)[i];
  }
  __device__ void Unpack(float (&to)[kVector]) const {
    T values[kVector];
    __builtin_memcpy(values, raw, sizeof(values));
#pragma unroll
    for (int i = 0; i < kVector; ++i) to[i] = ToFloat(values[i]);
  }
  __device__ void Pack(const float (&from)[kVector]) {
    T values[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) values[i] = FromFloat<T>(from[i]);
    __builtin_memcpy(raw, values, sizeof(values));
  }
  // REQUIRES: 16-byte alignment.
  __device__ void Store(T* to) const {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) reinterpret_cast<uint4*>(to)[i] = raw[i];
  }
  // By instructions of 16 bytes: of assignments nvcc makes others in some places.
  __device__ void StoreWhole(T* to) const {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(T) / 2); ++i) __stwb(reinterpret_cast<uint4*>(to) + i, raw[i]);
  }
};

// REQUIRES: 16-byte alignment.
template <class T>
__device__ inline void LoadVector(const T* from, float (&to)[kVector]) {
  PackedVector<T> packed;
  packed.Load(from);
  packed.Unpack(to);
}

// REQUIRES: 16-byte alignment.
template <class T>
__device__ inline void StoreVector(T* to, const float (&from)[kVector]) {
  PackedVector<T> packed;
  packed.Pack(from);
  packed.Store(to);
}

}  // namespace beamline::kernels
