// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/moe_cuda.h"
#include "cuda/grouped_tile.cuh"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"
#include "cuda/vector.cuh"
#include "cuda/warpgroups.cuh"

namespace beamline::kernels {
namespace {

constexpr int kRows = 64;  // places of a block's tile

// -- Tensor cores -----------------------------------------------------------------------------------------------------
// 64 x 128 outputs by four warps of 32 x 64, k in tiles of 32, three stages in flight.

constexpr int kColumns = 128;
constexpr int kDepth = 32;
constexpr int kStages = 3;
constexpr int kPad = 8;
constexpr int kThreads = 128;

template <class T>
struct __align__(16) ProductStorage {
  T x[kStages][kRows][kDepth + kPad];
  T weight[kStages][kColumns][kDepth + kPad];
};

template <class T>
__global__ void __launch_bounds__(kThreads) GroupedProduct(const __grid_constant__ GroupedProductArgs args) {
  AwaitPredecessors();
  __shared__ ProductStorage<T> storage;
  const Tile tile = TileOf(args, blockIdx.y, kRows);
  if (tile.begin >= tile.end) return;
  const int32_t first_column = blockIdx.x * kColumns;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int warp_row = warp / 2 * 32, warp_column = warp % 2 * 64;

  // Each thread copies 16 bytes of the same rows in every stage.
  constexpr int kChunks = kDepth / 8, kRowStep = kThreads / kChunks;
  const int copy_row = threadIdx.x / kChunks, copy_column = threadIdx.x % kChunks * 8;
  const T* x[kRows / kRowStep];
#pragma unroll
  for (int i = 0; i < kRows / kRowStep; ++i) {
    const int32_t place = tile.begin + copy_row + i * kRowStep;
    x[i] = place < tile.end ? Row<T>(args, place) : nullptr;
  }
  const T* weight = static_cast<const T*>(args.weight) + int64_t{tile.expert} * args.n * args.k;
  const auto load = [&](int stage, int32_t k) {
    const bool inside = k + copy_column < args.k;
#pragma unroll
    for (int i = 0; i < kRows / kRowStep; ++i) {
      const bool valid = inside && x[i] != nullptr;
      CopyAsync16(&storage.x[stage][copy_row + i * kRowStep][copy_column], valid ? x[i] + k + copy_column : weight,
                  valid);
    }
#pragma unroll
    for (int i = 0; i < kColumns / kRowStep; ++i) {
      const int32_t column = first_column + copy_row + i * kRowStep;
      const bool valid = inside && column < args.n;
      CopyAsync16(&storage.weight[stage][copy_row + i * kRowStep][copy_column],
                  valid ? weight + int64_t{column} * args.k + k + copy_column : weight, valid);
    }
  };

  float sum[2][8][4] = {};
  const int32_t steps = (args.k + kDepth - 1) / kDepth;
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) load(stage, stage * kDepth);
    CopyAsyncCommit();
  }
  for (int32_t step = 0; step < steps; ++step) {
    CopyAsyncWait<kStages - 2>();
    __syncthreads();  // the step's tiles are there, and the stage below has been read by all
    if (step + kStages - 1 < steps) load((step + kStages - 1) % kStages, (step + kStages - 1) * kDepth);
    CopyAsyncCommit();
    const auto& x_tile = storage.x[step % kStages];
    const auto& weight_tile = storage.weight[step % kStages];
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t a[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) LoadMatrix4(a[m], &x_tile[warp_row + m * 16 + lane % 16][k + lane / 16 * 8]);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[4];
        LoadMatrix4(b, &weight_tile[warp_column + n * 16 + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          MatrixMultiply<T>(sum[m][2 * n], a[m], b[0], b[1]);
          MatrixMultiply<T>(sum[m][2 * n + 1], a[m], b[2], b[3]);
        }
      }
    }
  }
  CopyAsyncWait<0>();

#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int32_t place = tile.begin + warp_row + m * 16 + half * 8 + lane / 4;
      if (place >= tile.end) continue;
      T* out = static_cast<T*>(args.out) + int64_t{place} * args.n;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const int32_t column = first_column + warp_column + n * 8 + lane % 4 * 2;
        if (column < args.n) {
          *reinterpret_cast<uint32_t*>(out + column) = Pack<T>(sum[m][n][2 * half], sum[m][n][2 * half + 1]);
        }
      }
    }
  }
}

// -- fp32, for parity -------------------------------------------------------------------------------------------------
// 64 x 16 outputs, four rows of one column per thread.

constexpr int kPlainColumns = 16;
constexpr int kPlainDepth = 16;

__global__ void __launch_bounds__(256) PlainProduct(const __grid_constant__ GroupedProductArgs args) {
  AwaitPredecessors();
  __shared__ float x_tile[kRows][kPlainDepth + 1], weight_tile[kPlainColumns][kPlainDepth + 1];
  const Tile tile = TileOf(args, blockIdx.y, kRows);
  if (tile.begin >= tile.end) return;
  const int column = threadIdx.x % kPlainColumns, row = threadIdx.x / kPlainColumns;
  const int32_t first_column = blockIdx.x * kPlainColumns;
  const float* weight = static_cast<const float*>(args.weight) + int64_t{tile.expert} * args.n * args.k;
  float sum[4] = {};
  for (int32_t k = 0; k < args.k; k += kPlainDepth) {
    const int depth = threadIdx.x % kPlainDepth, line = threadIdx.x / kPlainDepth;
    const bool inside = k + depth < args.k;
    __syncthreads();
    for (int i = line; i < kRows; i += 256 / kPlainDepth) {
      const bool valid = inside && tile.begin + i < tile.end;
      x_tile[i][depth] = valid ? Row<float>(args, tile.begin + i)[k + depth] : 0.0f;
    }
    const bool valid = inside && first_column + line < args.n;
    weight_tile[line][depth] = valid ? weight[int64_t{first_column + line} * args.k + k + depth] : 0.0f;
    __syncthreads();
    for (int d = 0; d < kPlainDepth; ++d) {
#pragma unroll
      for (int i = 0; i < 4; ++i) sum[i] += x_tile[row + 16 * i][d] * weight_tile[column][d];
    }
  }
  if (first_column + column >= args.n) return;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int32_t place = tile.begin + row + 16 * i;
    if (place < tile.end) static_cast<float*>(args.out)[int64_t{place} * args.n + first_column + column] = sum[i];
  }
}

bool Valid(const GroupedProductArgs& args) {
  if (args.entries < 1 || args.experts < 1 || args.experts > kMaxExperts || args.divisor < 1) return false;
  for (int32_t size : {args.n, args.k}) {
    if (size < 8 || size > kMaxRowWidth || size % 8 != 0) return false;
  }
  if (args.begin == nullptr || (args.entry == nullptr && args.divisor != 1)) return false;
  if (!AreNaturallyAligned(args.begin, args.entry)) return false;
  for (const void* array : {args.x, args.weight, static_cast<const void*>(args.out)}) {
    if (array == nullptr || !IsAligned(array)) return false;
  }
  if (args.gated && (args.n % 16 != 0 || !TakesWarpgroups(args))) return false;
  return MostTiles(args, kRows) <= 65535;
}

}  // namespace

LaunchError GroupedProductCuda(const GroupedProductArgs& args, CudaStream stream) {
  if (!Valid(args)) return LaunchError::kInvalidArgument;
  if (TakesWarpgroups(args)) return WarpgroupProductCuda(args, stream);
  const auto grid = [&](int columns) {
    return dim3(static_cast<unsigned>((args.n + columns - 1) / columns), MostTiles(args, kRows));
  };
  return WithType(args.type, [&]<class T>(T) {
    if constexpr (__is_same(T, float)) {
      return Launch(PlainProduct, {grid(kPlainColumns), 256}, stream, args);
    } else {
      return Launch(GroupedProduct<T>, {grid(kColumns), kThreads}, stream, args);
    }
  });
}

}  // namespace beamline::kernels
