// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/moe_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {
namespace {

constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int kRouteRows = 4;    // of a block
constexpr int kRouteWarps = 16;  // each has every 16th expert, for all the rows: chains of dependent loads are short

// Scores by all warps, then the choice by one warp per row. One block to an SM may use its registers: time is latency
// here, and for two or three of them ptxas spills (sm_80).
template <class T>
__global__ void __launch_bounds__(kRouteWarps * 32, 1) MoeRoute(const __grid_constant__ MoeRouteArgs args) {
  AwaitPredecessors();
  __shared__ float scores[kRouteRows][kMaxExperts];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first_row = int64_t{blockIdx.x} * kRouteRows;
  const T* x[kRouteRows];  // beyond the end the last one again
#pragma unroll
  for (int r = 0; r < kRouteRows; ++r) {
    const int64_t row = first_row + r < args.rows ? first_row + r : args.rows - 1;
    x[r] = static_cast<const T*>(args.x) + row * args.width;
  }
  for (int32_t e = warp; e < args.experts; e += kRouteWarps) {
    const T* gate = static_cast<const T*>(args.gate) + int64_t{e} * args.width;
    float dot[kRouteRows] = {};
#pragma unroll 2
    for (int32_t i = lane * kVector; i < args.width; i += 32 * kVector) {
      float a[kVector], b[kVector];
      LoadVector(gate + i, b);
#pragma unroll
      for (int r = 0; r < kRouteRows; ++r) {
        LoadVector(x[r] + i, a);
#pragma unroll
        for (int j = 0; j < kVector; ++j) dot[r] += a[j] * b[j];
      }
    }
    for (int offset = 16; offset > 0; offset /= 2) {
#pragma unroll
      for (int r = 0; r < kRouteRows; ++r) dot[r] += __shfl_xor_sync(kFullWarp, dot[r], offset);
    }
    if (lane != 0) continue;
#pragma unroll
    for (int r = 0; r < kRouteRows; ++r) scores[r][e] = 1.0f / (1.0f + expf(-dot[r]));
  }
  __syncthreads();
  const int64_t row = first_row + warp;
  if (warp >= kRouteRows || row >= args.rows) return;
  uint32_t taken = 0;  // of this lane's experts lane, lane + 32, ...
  float sum = 0;
  int32_t mine = 0;  // lane j keeps choice j
  for (int32_t choice = 0; choice < args.top_k; ++choice) {
    float best = -INFINITY;
    int32_t index = args.experts;  // none yet
    for (int32_t e = lane, i = 0; e < args.experts; e += 32, ++i) {
      if ((taken >> i & 1u) != 0) continue;
      const float value = scores[warp][e] + args.bias[e];
      if (index == args.experts || value > best || (best != best && value == value)) {  // a NaN is below all
        best = value;
        index = e;
      }
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      const float other = __shfl_xor_sync(kFullWarp, best, offset);
      const int32_t other_index = __shfl_xor_sync(kFullWarp, index, offset);
      // A total order, NaN below all: every lane ends with the same choice.
      const bool mine_nan = !(best == best), other_nan = !(other == other);
      const bool tie = mine_nan ? other_nan : best == other;
      const bool better =
          index == args.experts || (!other_nan && (mine_nan || other > best)) || (tie && other_index < index);
      if (other_index < args.experts && better) {
        best = other;
        index = other_index;
      }
    }
    if (index % 32 == lane) taken |= 1u << (index / 32);
    sum += scores[warp][index];
    if (lane == choice) mine = index;
  }
  if (lane < args.top_k) {
    args.expert[row * args.top_k + lane] = mine;
    args.weight[row * args.top_k + lane] = scores[warp][mine] / (sum + kMoeSumFloor);
  }
}

// One block per expert: how many entries belong to smaller experts, then its own entries in order.
constexpr int kGroupThreads = 512;
constexpr int kGroupWarps = kGroupThreads / 32;

// Sum of the warps' counts before this one, and of all; `counts` is used by one call at a time.
__device__ int32_t CountBefore(int32_t count, int32_t (&counts)[kGroupWarps], int32_t* total) {
  __syncthreads();
  if (threadIdx.x % 32 == 0) counts[threadIdx.x / 32] = count;
  __syncthreads();
  int32_t before = 0;
  *total = 0;
  for (int warp = 0; warp < kGroupWarps; ++warp) {
    if (warp < static_cast<int>(threadIdx.x / 32)) before += counts[warp];
    *total += counts[warp];
  }
  return before;
}

__global__ void __launch_bounds__(kGroupThreads) MoeGroup(const __grid_constant__ MoeGroupArgs args) {
  AwaitPredecessors();
  __shared__ int32_t counts[kGroupWarps];
  const int32_t expert = static_cast<int32_t>(blockIdx.x);
  const int lane = threadIdx.x % 32;
  int32_t smaller = 0;
  for (int32_t i = threadIdx.x; i < args.entries; i += kGroupThreads) smaller += args.expert[i] < expert ? 1 : 0;
  for (int offset = 16; offset > 0; offset /= 2) smaller += __shfl_xor_sync(kFullWarp, smaller, offset);
  int32_t next = 0;
  CountBefore(smaller, counts, &next);
  if (threadIdx.x == 0) args.begin[expert] = next;
  for (int32_t first = 0; first < args.entries; first += kGroupThreads) {
    const int32_t i = first + static_cast<int32_t>(threadIdx.x);
    const bool belongs = i < args.entries && args.expert[i] == expert;
    const unsigned lanes = __ballot_sync(kFullWarp, belongs);
    int32_t total = 0;
    const int32_t before = CountBefore(__popc(lanes), counts, &total);
    if (belongs) {
      const int32_t place = next + before + __popc(lanes & ((1u << lane) - 1));
      args.entry[place] = i;
      args.place[i] = place;
    }
    next += total;
  }
  if (expert == args.experts - 1 && threadIdx.x == 0) args.begin[args.experts] = next;
}

constexpr int kCombineThreads = 256;

template <class T>
__global__ void __launch_bounds__(kCombineThreads) MoeCombine(const __grid_constant__ MoeCombineArgs args) {
  AwaitPredecessors();
  const int64_t at = int64_t{blockIdx.x} * kCombineThreads + threadIdx.x;
  const int32_t vectors = args.width / kVector;
  const int64_t row = at / vectors;
  const int32_t column = static_cast<int32_t>(at % vectors) * kVector;
  if (row >= args.rows) return;
  float sum[kVector] = {};
  for (int32_t j = 0; j < args.top_k; ++j) {
    const int64_t entry = row * args.top_k + j;
    float y[kVector];
    LoadVector(static_cast<const T*>(args.y) + int64_t{args.place[entry]} * args.width + column, y);
    const float weight = args.weight[entry];
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum[i] += weight * y[i];
  }
  if (args.shared != nullptr) {
    float shared[kVector];
    LoadVector(static_cast<const T*>(args.shared) + row * args.width + column, shared);
#pragma unroll
    for (int i = 0; i < kVector; ++i) sum[i] += shared[i];
  }
  StoreVector(static_cast<T*>(args.out) + row * args.width + column, sum);
}

bool ValidWidth(int32_t width) { return width >= 8 && width % 8 == 0 && width <= kMaxRowWidth; }

}  // namespace

LaunchError MoeRouteCuda(const MoeRouteArgs& args, CudaStream stream) {
  if (args.rows < 1 || !ValidWidth(args.width) || args.experts < 1 || args.experts > kMaxExperts || args.top_k < 1 ||
      args.top_k > args.experts || args.top_k > kMaxExpertsPerRow || args.x == nullptr || args.gate == nullptr ||
      args.bias == nullptr || args.expert == nullptr || args.weight == nullptr || !IsAligned(args.x) ||
      !IsAligned(args.gate) || !AreNaturallyAligned(args.bias, args.expert, args.weight)) {
    return LaunchError::kInvalidArgument;
  }
  return WithType(args.type, [&]<class T>(T) {
    return Launch(MoeRoute<T>, {static_cast<unsigned>((args.rows - 1) / kRouteRows + 1), kRouteWarps * 32}, stream,
                  args);
  });
}

LaunchError MoeGroupCuda(const MoeGroupArgs& args, CudaStream stream) {
  if (args.entries < 1 || args.entries > (1 << 30) || args.experts < 1 || args.experts > kMaxExperts ||
      args.expert == nullptr || args.begin == nullptr || args.entry == nullptr || args.place == nullptr ||
      !AreNaturallyAligned(args.expert, args.begin, args.entry, args.place)) {
    return LaunchError::kInvalidArgument;
  }
  return Launch(MoeGroup, {static_cast<unsigned>(args.experts), kGroupThreads}, stream, args);
}

LaunchError MoeCombineCuda(const MoeCombineArgs& args, CudaStream stream) {
  if (args.rows < 1 || !ValidWidth(args.width) || args.top_k < 1 || args.top_k > kMaxExpertsPerRow ||
      int64_t{args.rows} * args.top_k > 0x7fffffff || args.y == nullptr || args.place == nullptr ||
      args.weight == nullptr || args.out == nullptr || !IsAligned(args.y) || !IsAligned(args.shared) ||
      !IsAligned(args.out) || !AreNaturallyAligned(args.place, args.weight)) {
    return LaunchError::kInvalidArgument;
  }
  const int64_t blocks = (int64_t{args.rows} * (args.width / kVector) + kCombineThreads - 1) / kCombineThreads;
  if (blocks > 0x7fffffff) return LaunchError::kInvalidArgument;
  return WithType(args.type, [&]<class T>(T) {
    return Launch(MoeCombine<T>, {static_cast<unsigned>(blocks), kCombineThreads}, stream, args);
  });
}

}  // namespace beamline::kernels
