// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/product_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"
#include "cuda/product_epilogue.cuh"
#include "cuda/weight_prefetch.cuh"

namespace beamline::kernels {
namespace {

// A block is a warp. The weight's rows are the matrix instruction's sixteen (eight gates and their values), x's rows
// its eight columns. In flight are eleven stages of 2 KiB of the weight: with one block on a multiprocessor about what
// latency times bandwidth asks for.
constexpr int kWarp = 32;
constexpr int kColumns = 16;  // rows of the weight
constexpr int kTileRows = 8;  // of x
constexpr int kDepth = 64;
constexpr int kChunk = 8;  // elements of 16 bytes
constexpr int kChunks = kDepth / kChunk;
constexpr int kStages = 12;

template <class T, int kTiles>
struct __align__(16) SkinnyStage {
  T weight[kColumns * kDepth];
  T x[kTiles * kTileRows * kDepth];
};

// Chunks are swizzled, so that eight rows of one column of chunks lie in all banks.
__device__ int Place(int row, int chunk) { return row * kDepth + (chunk ^ (row % kChunks)) * kChunk; }

struct Depth {
  int32_t begin, end;
};

// Copies these elements of rows, of which row(i) is null where there is none; what is outside becomes 0.
template <int kRows, class T, class RowOf>
__device__ void LoadRows(T* to, RowOf row, const void* some, Depth depth) {
#pragma unroll
  for (int i = 0; i < kRows * kChunks / kWarp; ++i) {
    const int at = i * kWarp + static_cast<int>(threadIdx.x), chunk = at % kChunks;
    const T* from = row(at / kChunks);
    const bool valid = from != nullptr && depth.begin + chunk * kChunk < depth.end;
    CopyAsync16(to + Place(at / kChunks, chunk), valid ? from + depth.begin + chunk * kChunk : some, valid);
  }
}

template <class T, class Out, int kTiles, class Gate>
__global__ void __launch_bounds__(kWarp) SkinnyProduct(const __grid_constant__ ProductArgs args) {
  constexpr bool kGated = Gate::kExists;
  constexpr int kResults = kGated ? kColumns / 2 : kColumns;
  const int lane = threadIdx.x;
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kResults, width = kGated ? args.n / 2 : args.n;
  const T* weight = static_cast<const T*>(args.weight);
  const auto weight_row = [&](int i) {  // gates, then their values
    const int32_t column = first + i % kResults;
    return column < width ? weight + (column + (i < kResults ? 0 : width)) * args.weight_step : nullptr;
  };
  PrefetchRows<kColumns, kWarp>(weight_row, args.k);
  AwaitPredecessorsAlone();
  auto* const stages = DynamicShared<SkinnyStage<T, kTiles>>();
  const auto x_row = [&](int i) { return i < args.rows ? static_cast<const T*>(args.x) + i * args.x_step : nullptr; };
  const auto load = [&](int stage, int32_t k) {
    LoadRows<kColumns>(stages[stage].weight, weight_row, weight, {k, args.k});
    LoadRows<kTiles * kTileRows>(stages[stage].x, x_row, weight, {k, args.k});
  };
  float sum[kTiles][4] = {};
  const int32_t steps = (args.k + kDepth - 1) / kDepth;
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) load(stage, stage * kDepth);
    CopyAsyncCommit();
  }
  for (int32_t step = 0; step < steps; ++step) {
    CopyAsyncWait<kStages - 2>();
    __syncwarp();  // the step's tiles are there, and all lanes have read the stage before
    if (step + kStages - 1 < steps) load((step + kStages - 1) % kStages, (step + kStages - 1) * kDepth);
    CopyAsyncCommit();
    if (step == max(0, steps - kStages + 1)) AdmitSuccessors();
    const SkinnyStage<T, kTiles>& stage = stages[step % kStages];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t x[kTiles][4];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        LoadMatrix4(x[tile], &stage.x[Place(tile * kTileRows + lane % 8, half * 4 + lane / 8)]);
      }
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        uint32_t a[4];
        LoadMatrix4(a, &stage.weight[Place(lane % 16, half * 4 + part * 2 + lane / 16)]);
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          MatrixMultiply<T>(sum[tile], a, x[tile][2 * part], x[tile][2 * part + 1]);
        }
      }
    }
  }
  CopyAsyncWait<0>();
#pragma unroll
  for (int tile = 0; tile < kTiles; ++tile) {
#pragma unroll
    for (int next = 0; next < 2; ++next) {
      constexpr int kEights = kResults / 8;
      const int32_t row = tile * kTileRows + lane % 4 * 2 + next;
      int32_t column[kEights];
      float value[kEights];
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
        column[eight] = first + eight * 8 + lane / 4;
        value[eight] = sum[tile][eight * 2 + next];
      }
      if constexpr (kGated) {
        value[0] = Gated<T, Gate::kKind>(args, value[0], sum[tile][2 + next]);
      } else {
        Finish<Out>(args, row, column, value);
      }
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
        if (row >= args.rows || column[eight] >= width) continue;
        static_cast<Out*>(args.out)[row * args.out_step + column[eight]] = FromFloat<Out>(value[eight]);
      }
    }
  }
}

template <class T, class Out, class Gate>
LaunchError Start(const ProductArgs& args, CudaStream stream) {
  const unsigned blocks = (static_cast<unsigned>(args.n) + kColumns - 1) / kColumns;
  const auto launch = [&](auto kernel, size_t stage_bytes) {
    return Launch(kernel, {blocks, kWarp, kStages * stage_bytes}, stream, args);
  };
  if (args.rows <= kTileRows) return launch(SkinnyProduct<T, Out, 1, Gate>, sizeof(SkinnyStage<T, 1>));
  return launch(SkinnyProduct<T, Out, 2, Gate>, sizeof(SkinnyStage<T, 2>));
}

}  // namespace

LaunchError SkinnyProductCuda(const ProductArgs& args, CudaStream stream) {
  if (!ValidProduct(args, kMaxSkinnyRows)) return LaunchError::kInvalidArgument;
  return WithProductTypes(
      args, [&]<class T, class Out, class Gate>(T, Out, Gate) { return Start<T, Out, Gate>(args, stream); });
}

}  // namespace beamline::kernels
