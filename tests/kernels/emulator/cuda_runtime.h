// SPDX-License-Identifier: Apache-2.0
//
// Stands in for CUDA's header of that name where kernels are compiled for the emulator: the part of the language and of
// the runtime that they and their tests use. Device memory is host memory.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "kernels/emulator/emulator.h"

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
#define BEAMLINE_EMULATED 1
#define __device__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __align__(bytes) alignas(bytes)
#define __shared__ static  // blocks run one after the other
#define threadIdx emulator::thread_index
#define blockIdx emulator::block_index

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};

inline void __syncthreads() { emulator::SyncBlock(false); }
inline int __syncthreads_or(int value) { return emulator::SyncBlock(value != 0) ? 1 : 0; }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulator::Shuffle(mask, 0, 0); }
inline void __threadfence() {}

inline unsigned emulated_lane() { return threadIdx.x % 32; }
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int offset) {
  return emulator::Shuffle(mask, value, emulated_lane() ^ static_cast<unsigned>(offset));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, int offset) {
  return emulator::Shuffle(mask, value, emulated_lane() + static_cast<unsigned>(offset));
}
template <class T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return emulator::Shuffle(mask, value, static_cast<unsigned>(lane));
}

inline unsigned __ballot_sync(unsigned mask, bool value) {
  emulator::Exchange(mask, &value, sizeof(value));
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    if ((mask >> lane & 1u) != 0 && *static_cast<const bool*>(emulator::Lane(lane))) lanes |= 1u << lane;
  }
  return lanes;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

template <class T>
T __ldcg(const T* p) {
  return *p;
}
inline unsigned atomicAdd(unsigned* p, unsigned value) {
  const unsigned before = *p;
  *p += value;
  return before;
}
inline unsigned atomicMax(unsigned* p, unsigned value) {
  const unsigned before = *p;
  if (value > before) *p = value;
  return before;
}
inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

using cudaStream_t = struct CUstream_st*;
enum cudaError_t { cudaSuccess = 0 };
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline const char* cudaGetErrorString(cudaError_t) { return "emulated"; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
inline cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
template <class T>
cudaError_t cudaMalloc(T** p, size_t bytes) {
  *p = static_cast<T*>(std::aligned_alloc(256, (bytes + 255) / 256 * 256));
  return cudaSuccess;
}
inline cudaError_t cudaFree(void* p) {
  std::free(p);
  return cudaSuccess;
}
inline cudaError_t cudaMemset(void* p, int value, size_t bytes) {
  std::memset(p, value, bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* p, int value, size_t bytes, cudaStream_t) {
  return cudaMemset(p, value, bytes);
}
inline cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  if (bytes > 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, size_t) {
  return cudaSuccess;
}
// NOLINTEND(readability-identifier-naming)
