// SPDX-License-Identifier: Apache-2.0
//
// The Block of beam_select_core.h on the device: all threads of the block call every function together.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "beamline/kernels/exp_non_positive.h"
#include "cuda/beam_select_core.h"

namespace beamline::kernels {

struct ScanResult {
  float max;
  bool bad;
};

template <int kThreads>
class CudaBlock {
 public:
  static constexpr int kCandidatesPerSlot = 2;
  static constexpr int kSpareCandidates = 1024;
  static constexpr int kWarps = kThreads / 32;
  static constexpr int kAtATime = 4;      // loads of a thread in LoadEach
  static constexpr int kSumBlock = 128;   // exponentials added pairwise in fp32
  static constexpr int kSumBlocks = 512;  // whose sums are kept at a time

  struct Storage {
    select::Shared shared;
    float sums[kSumBlocks];
    float max[kWarps];
    double sum;
    uint32_t last;
  };

  __device__ explicit CudaBlock(Storage& storage) : storage_(storage) {}

  __device__ select::Shared& shared() { return storage_.shared; }

  template <class F>
  __device__ void ForEach(int32_t n, F f) {
    for (int32_t i = threadIdx.x; i < n; i += kThreads) f(i);
    __syncthreads();
  }

  template <class LoadOne, class F>
  __device__ void LoadEach(int32_t n, LoadOne load, F f) {
    for (int32_t first = threadIdx.x; first < n; first += kThreads * kAtATime) {
      decltype(load(0)) items[kAtATime];
#pragma unroll
      for (int j = 0; j < kAtATime; ++j) {  // beyond the end the first one again: without branches loads overlap
        const int32_t i = first + j * kThreads;
        items[j] = load(i < n ? i : first);
      }
#pragma unroll
      for (int j = 0; j < kAtATime; ++j) {
        if (first + j * kThreads < n) f(first + j * kThreads, items[j]);
      }
    }
    __syncthreads();
  }

  template <class F>
  __device__ void ForEachOfWarp(int32_t n, F f) {
    for (int32_t i = threadIdx.x; i < n; i += kThreads) f(i);
    __syncwarp();
  }

  __device__ void Barrier() { __syncthreads(); }

  template <class F>
  __device__ void Once(F f) {
    if (threadIdx.x == 0) f();
    __syncthreads();
  }

  template <class At>
  __device__ ScanResult Scan(int32_t n, At at) {
    float max = -INFINITY;
    bool bad = false;
#pragma unroll 8
    for (int32_t i = threadIdx.x; i < n; i += kThreads) {
      const float x = at(i);
      bad |= !(x < INFINITY);
      max = fmaxf(max, x);
    }
    for (int offset = 16; offset > 0; offset /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, offset));
    __syncthreads();
    if (threadIdx.x % 32 == 0) storage_.max[threadIdx.x / 32] = max;
    bad = __syncthreads_or(bad) != 0;
    for (int warp = 0; warp < kWarps; ++warp) max = fmaxf(max, storage_.max[warp]);
    return {max, bad};
  }

  template <class At>
  __device__ double Sum(int32_t n, At at) {
    if (threadIdx.x < 32) {
      double sum = 0;
      for (int32_t i = threadIdx.x; i < n; i += 32) sum += at(i);
      for (int half = 16; half > 0; half /= 2) sum += __shfl_down_sync(0xffffffffu, sum, half);
      if (threadIdx.x == 0) storage_.sum = sum;
    }
    __syncthreads();
    return storage_.sum;
  }

  // Lane l of a warp holds terms l, l + 32, l + 64 and l + 96 of a block; halves are added as row_ops adds them.
  template <class At>
  __device__ double SumExp(int32_t n, At at, float max) {
    const int lane = threadIdx.x % 32;
    const int32_t blocks = (n + kSumBlock - 1) / kSumBlock;
    Once([&] { storage_.sum = 0; });
    for (int32_t first = 0; first < blocks; first += kSumBlocks) {
      const int32_t count = blocks - first < kSumBlocks ? blocks - first : kSumBlocks;
#pragma unroll 2
      for (int32_t block = threadIdx.x / 32; block < count; block += kWarps) {
        float term[4];
        for (int j = 0; j < 4; ++j) {
          const int32_t i = (first + block) * kSumBlock + 32 * j + lane;
          term[j] = i < n ? ExpNonPositive(at(i) - max) : 0.0f;
        }
        float sum = (term[0] + term[2]) + (term[1] + term[3]);
        for (int half = 16; half > 0; half /= 2) sum += __shfl_down_sync(0xffffffffu, sum, half);
        if (lane == 0) storage_.sums[block] = sum;
      }
      __syncthreads();
      Once([&] {
        double sum = storage_.sum;
#pragma unroll 16
        for (int32_t block = 0; block < count; ++block) sum += storage_.sums[block];
        storage_.sum = sum;
      });
    }
    return storage_.sum;
  }

  __device__ bool IsLast(uint32_t* counter, int32_t n) {
    __threadfence();
    __syncthreads();
    Once([&] {
      const uint32_t before = atomicAdd(counter, 1u);
      storage_.last = before + 1 == static_cast<uint32_t>(n);
      if (storage_.last != 0) *counter = 0;
    });
    __threadfence();
    return storage_.last != 0;
  }

  __device__ uint32_t Load(const uint32_t* p) { return __ldcg(p); }
  __device__ select::Candidate Load(const select::Candidate* p) {
    const uint4 raw = __ldcg(reinterpret_cast<const uint4*>(p));
    select::Candidate candidate;
    candidate.key = static_cast<uint64_t>(raw.y) << 32 | raw.x;
    candidate.log_prob = __uint_as_float(raw.z);
    candidate.parent = static_cast<int32_t>(raw.w);
    return candidate;
  }
  __device__ uint32_t Add(uint32_t* p, uint32_t value) { return atomicAdd(p, value); }
  // One atomic for those of a warp that come together.
  __device__ uint32_t Append(uint32_t* counter) {
    const unsigned together = __activemask();
    const int lane = threadIdx.x % 32, leader = __ffs(static_cast<int>(together)) - 1;
    uint32_t first = 0;
    if (lane == leader) first = atomicAdd(counter, static_cast<uint32_t>(__popc(together)));
    return __shfl_sync(together, first, leader) + static_cast<uint32_t>(__popc(together & ((1u << lane) - 1)));
  }
  __device__ void Max(uint32_t* p, uint32_t value) { atomicMax(p, value); }

 private:
  Storage& storage_;
};

}  // namespace beamline::kernels
