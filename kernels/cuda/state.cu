// SPDX-License-Identifier: Apache-2.0
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

// One block per token, which counts the visible ones before its own.
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
  const int64_t words = args.row_bytes / 4;
  const uint32_t* from = static_cast<const uint32_t*>(args.x) + token * words;
  uint32_t* to = static_cast<uint32_t*>(args.out) + before * words;
  for (int64_t i = threadIdx.x; i < words; i += kThreads) to[i] = from[i];
}

// One block per row of the result.
__global__ void __launch_bounds__(kThreads) StackRows(const __grid_constant__ StackRowsArgs args) {
  AwaitPredecessors();
  const int32_t request = static_cast<int32_t>(blockIdx.y), row = static_cast<int32_t>(blockIdx.x);
  const int64_t words = args.row_bytes / 4;
  uint32_t* to = static_cast<uint32_t*>(args.out) + (int64_t{request} * args.capacity + row) * words;
  const bool held = row < args.count[request];
  const uint32_t* from = held ? static_cast<const uint32_t*>(args.rows[request]) + row * words : nullptr;
  for (int64_t i = threadIdx.x; i < words; i += kThreads) to[i] = held ? from[i] : args.fill;
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
  if (!ValidRows(1, args.tokens) || !ValidRowBytes(args.row_bytes) || args.order == nullptr || args.x == nullptr ||
      args.out == nullptr || !AreNaturallyAligned(args.order) || !IsAligned(args.x, 4) || !IsAligned(args.out, 4)) {
    return LaunchError::kInvalidArgument;
  }
  return Launch(TakeVisible, {static_cast<unsigned>(args.tokens), kThreads}, stream, args);
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

}  // namespace beamline::kernels
