// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>

#include "beamline/kernels/state_cuda.h"
#include "cuda/launch.cuh"

namespace beamline::kernels {
namespace {

constexpr int kThreads = 256;

__device__ int64_t ThreadOfGrid() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

// Keeps the order of signed numbers.
__device__ uint32_t Ascending(int32_t x) { return static_cast<uint32_t>(x) ^ 0x80000000u; }

// One block per request.
__global__ void __launch_bounds__(kThreads) Visibility(const __grid_constant__ VisibilityArgs args) {
  AwaitPredecessors();
  __shared__ uint32_t widest, keys;
  const int64_t request = blockIdx.x;
  int32_t* order = args.out + request * args.tokens;
  int32_t* limit = args.out + int64_t{args.requests} * args.tokens + request * args.groups;
  const auto order_of = [&](int32_t token) {
    return args.order == nullptr ? token : args.order[request * args.tokens + token];
  };
  if (threadIdx.x == 0) widest = keys = 0;
  __syncthreads();
  uint32_t my_widest = 0;
  for (int32_t g = threadIdx.x; g < args.groups; g += kThreads) {
    const int32_t of_group = args.own_order          ? order_of(g)
                             : args.limit == nullptr ? kHiddenOrder - 1
                                                     : args.limit[request * args.groups + g];
    limit[g] = of_group;
    my_widest = Ascending(of_group) > my_widest ? Ascending(of_group) : my_widest;
  }
  atomicMax(&widest, my_widest);
  __syncthreads();
  uint32_t my_keys = 0;
  for (int32_t t = threadIdx.x; t < args.tokens; t += kThreads) {
    order[t] = order_of(t);
    if (Ascending(order[t]) <= widest) my_keys = static_cast<uint32_t>(t) + 1;
  }
  atomicMax(&keys, my_keys);
  __syncthreads();
  if (threadIdx.x == 0) {
    args.out[int64_t{args.requests} * (args.tokens + args.groups) + request] = static_cast<int32_t>(keys);
  }
}

__global__ void __launch_bounds__(kThreads) ExtendLineage(const __grid_constant__ ExtendLineageArgs args) {
  AwaitPredecessors();
  const int64_t row = ThreadOfGrid(), rows = int64_t{args.requests} * args.rows;
  if (row >= rows) return;
  int32_t parent = args.parents[row];
  if (parent < 0 || parent >= args.parent_rows) parent = 0;
  const int64_t from = row / args.rows * args.parent_rows + parent;
  const int64_t plane = int64_t{args.requests} * args.parent_rows;
  for (int32_t s = 0; s < args.steps; ++s) args.out[s * rows + row] = args.lineage[s * plane + from];
  args.out[args.steps * rows + row] = parent;
}

__global__ void __launch_bounds__(kThreads) NextStep(const __grid_constant__ NextStepArgs args) {
  AwaitPredecessors();
  const int64_t row = ThreadOfGrid();
  if (row >= int64_t{args.requests} * args.rows) return;
  const int64_t request = row / args.rows;
  const int32_t at = static_cast<int32_t>(row % args.rows);
  const int64_t slot = request * args.slots + at;
  const bool active = at < args.count[request];
  args.codes[row] = active ? args.code[slot] : 0;
  args.parents[row] = active ? args.parent[slot] : 0;
}

__global__ void __launch_bounds__(kThreads) RankNodes(const __grid_constant__ RankNodesArgs args) {
  AwaitPredecessors();
  const int64_t slot = ThreadOfGrid();
  if (slot >= int64_t{args.requests} * args.slots) return;
  const int64_t first = slot / args.slots * args.slots;
  const int32_t count = min(args.count[slot / args.slots], args.slots);
  if (slot - first >= count) return;
  const uint32_t own = args.node[slot];
  uint32_t smaller = 0;
  for (int32_t i = 0; i < count; ++i) smaller += args.node[first + i] < own ? 1 : 0;
  args.rank[slot] = smaller;
}

__device__ bool AreAligned(const void* a, const void* b, int64_t bytes, unsigned to) {
  return (reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) | static_cast<uintptr_t>(bytes)) % to == 0;
}

// By threads first, first + step, ... of those that copy. Unrolled, a kernel's three loops spill.
template <class Unit>
__device__ void CopyUnits(void* to, const void* from, int64_t bytes, int64_t first, int64_t step) {
#pragma unroll 1
  for (int64_t i = first; i < bytes / static_cast<int64_t>(sizeof(Unit)); i += step) {
    static_cast<Unit*>(to)[i] = static_cast<const Unit*>(from)[i];
  }
}
__device__ void CopyBytes(void* to, const void* from, int64_t bytes, int64_t first, int64_t step) {
  if (AreAligned(to, from, bytes, sizeof(uint4))) {
    CopyUnits<uint4>(to, from, bytes, first, step);
  } else if (AreAligned(to, from, bytes, sizeof(uint32_t))) {
    CopyUnits<uint32_t>(to, from, bytes, first, step);
  } else {
    CopyUnits<unsigned char>(to, from, bytes, first, step);
  }
}

// One block per token and x, which counts the visible ones before its own.
__global__ void __launch_bounds__(kThreads) TakeVisible(const __grid_constant__ TakeVisibleArgs args) {
  AwaitPredecessors();
  __shared__ uint32_t before;
  const int32_t token = static_cast<int32_t>(blockIdx.x);
  if (args.order[token] == kHiddenOrder) return;
  if (threadIdx.x == 0) before = 0;
  __syncthreads();
  uint32_t mine = 0;
  for (int32_t t = threadIdx.x; t < token; t += kThreads) mine += args.order[t] != kHiddenOrder ? 1 : 0;
  atomicAdd(&before, mine);
  __syncthreads();
  const int64_t bytes = args.row_bytes[blockIdx.y];
  CopyBytes(static_cast<char*>(args.out[blockIdx.y]) + before * bytes,
            static_cast<const char*>(args.x[blockIdx.y]) + token * bytes, bytes, threadIdx.x, kThreads);
}

// One block per row of the result.
__global__ void __launch_bounds__(kThreads) StackRows(const __grid_constant__ StackRowsArgs args) {
  AwaitPredecessors();
  const int32_t request = static_cast<int32_t>(blockIdx.y), row = static_cast<int32_t>(blockIdx.x);
  char* to = static_cast<char*>(args.out) + (int64_t{request} * args.capacity + row) * args.row_bytes;
  if (row < args.count[request]) {
    CopyBytes(to, static_cast<const char*>(args.rows[request]) + row * args.row_bytes, args.row_bytes, threadIdx.x,
              kThreads);
    return;
  }
  for (int64_t i = threadIdx.x; i < args.row_bytes / 4; i += kThreads) reinterpret_cast<uint32_t*>(to)[i] = args.fill;
}

// Blocks of a column share a copy; `step` threads they are.
__global__ void __launch_bounds__(kThreads) CopyAll(const __grid_constant__ CopyAllArgs args, int64_t step) {
  AwaitPredecessors();
  CopyBytes(args.to[blockIdx.y], args.from[blockIdx.y], args.bytes[blockIdx.y], ThreadOfGrid(), step);
}

bool ValidRows(int32_t requests, int32_t rows) {
  return requests >= 1 && rows >= 1 && int64_t{requests} * rows <= kMaxStateRows;
}

unsigned Blocks(int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

bool ValidRowBytes(int64_t bytes) { return bytes >= 4 && bytes % 4 == 0 && bytes <= (int64_t{1} << 30); }

}  // namespace

LaunchError VisibilityCuda(const VisibilityArgs& args, CudaStream stream) {
  if (!ValidRows(args.requests, args.tokens) || !ValidRows(args.requests, args.groups) || args.out == nullptr ||
      !AreNaturallyAligned(args.order, args.limit, args.out) ||
      (args.own_order && (args.limit != nullptr || args.groups != args.tokens))) {
    return LaunchError::kInvalidArgument;
  }
  return Launch(Visibility, {static_cast<unsigned>(args.requests), kThreads}, stream, args);
}

LaunchError ExtendLineageCuda(const ExtendLineageArgs& args, CudaStream stream) {
  if (!ValidRows(args.requests, args.rows) || !ValidRows(args.requests, args.parent_rows) || args.steps < 0 ||
      args.steps > 64 || (args.steps > 0 && args.lineage == nullptr) || args.parents == nullptr ||
      args.out == nullptr || !AreNaturallyAligned(args.lineage, args.parents, args.out)) {
    return LaunchError::kInvalidArgument;
  }
  return Launch(ExtendLineage, {Blocks(int64_t{args.requests} * args.rows), kThreads}, stream, args);
}

LaunchError NextStepCuda(const NextStepArgs& args, CudaStream stream) {
  if (!ValidRows(args.requests, args.slots) || args.rows < 1 || args.rows > args.slots || args.count == nullptr ||
      args.code == nullptr || args.parent == nullptr || args.codes == nullptr || args.parents == nullptr ||
      !AreNaturallyAligned(args.count, args.code, args.parent, args.codes, args.parents)) {
    return LaunchError::kInvalidArgument;
  }
  return Launch(NextStep, {Blocks(int64_t{args.requests} * args.rows), kThreads}, stream, args);
}

LaunchError RankNodesCuda(const RankNodesArgs& args, CudaStream stream) {
  if (!ValidRows(args.requests, args.slots) || args.count == nullptr || args.node == nullptr || args.rank == nullptr ||
      !AreNaturallyAligned(args.count, args.node, args.rank)) {
    return LaunchError::kInvalidArgument;
  }
  return Launch(RankNodes, {Blocks(int64_t{args.requests} * args.slots), kThreads}, stream, args);
}

LaunchError TakeVisibleCuda(const TakeVisibleArgs& args, CudaStream stream) {
  if (!ValidRows(1, args.tokens) || args.count < 1 || args.count > kMaxTaken || args.order == nullptr ||
      !AreNaturallyAligned(args.order)) {
    return LaunchError::kInvalidArgument;
  }
  for (int32_t i = 0; i < args.count; ++i) {
    if (!ValidRowBytes(args.row_bytes[i]) || args.x[i] == nullptr || args.out[i] == nullptr ||
        !IsAligned(args.x[i], 4) || !IsAligned(args.out[i], 4)) {
      return LaunchError::kInvalidArgument;
    }
  }
  const dim3 grid(static_cast<unsigned>(args.tokens), static_cast<unsigned>(args.count));
  return Launch(TakeVisible, {grid, kThreads}, stream, args);
}

LaunchError StackRowsCuda(const StackRowsArgs& args, CudaStream stream) {
  if (args.requests < 1 || args.requests > kMaxStacked || !ValidRows(args.requests, args.capacity) ||
      !ValidRowBytes(args.row_bytes) || args.out == nullptr || !IsAligned(args.out, 4)) {
    return LaunchError::kInvalidArgument;
  }
  for (int32_t i = 0; i < args.requests; ++i) {
    if (args.count[i] < 0 || args.count[i] > args.capacity || !IsAligned(args.rows[i], 4) ||
        (args.count[i] > 0 && args.rows[i] == nullptr)) {
      return LaunchError::kInvalidArgument;
    }
  }
  const dim3 grid(static_cast<unsigned>(args.capacity), static_cast<unsigned>(args.requests));
  return Launch(StackRows, {grid, kThreads}, stream, args);
}

LaunchError CopyAllCuda(const CopyAllArgs& args, CudaStream stream) {
  if (args.count < 1 || args.count > kMaxCopied) return LaunchError::kInvalidArgument;
  int64_t most = 0;
  for (int32_t i = 0; i < args.count; ++i) {
    if (args.from[i] == nullptr || args.to[i] == nullptr || args.bytes[i] < 1) return LaunchError::kInvalidArgument;
    most = std::max(most, args.bytes[i]);
  }
  // Four vectors a thread; more blocks than some waves of the device bring nothing.
  constexpr int64_t kBlockBytes = int64_t{kThreads} * 4 * sizeof(uint4), kMostBlocks = 1024;
  const auto blocks = static_cast<unsigned>(std::min((most + kBlockBytes - 1) / kBlockBytes, kMostBlocks));
  const dim3 grid(blocks, static_cast<unsigned>(args.count));
  return Launch(CopyAll, {grid, kThreads}, stream, args, int64_t{blocks} * kThreads);
}

}  // namespace beamline::kernels
