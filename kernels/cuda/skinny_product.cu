// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/skinny_product_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {
namespace {

// A block is a warp. The weight's rows are the matrix instruction's sixteen, x's rows its eight columns. In flight are
// eleven stages of 2 KiB of the weight: with one block on a multiprocessor about what latency times bandwidth asks for.
constexpr int kWarp = 32;
constexpr int kColumns = 16;  // of the result
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

// Copies rows of a matrix, from element k on; what is outside becomes 0.
template <int kRows, class T>
__device__ void LoadRows(T* to, const void* matrix, int64_t step, int32_t rows, const SkinnyProductArgs& args,
                         int32_t k) {
#pragma unroll
  for (int i = 0; i < kRows * kChunks / kWarp; ++i) {
    const int at = i * kWarp + static_cast<int>(threadIdx.x), row = at / kChunks, chunk = at % kChunks;
    const bool valid = row < rows && k + chunk * kChunk < args.k;
    const T* from = static_cast<const T*>(matrix);
    CopyAsync16(to + Place(row, chunk), valid ? from + row * step + k + chunk * kChunk : from, valid);
  }
}

template <class Out>
__device__ void Store(const SkinnyProductArgs& args, int32_t row, int32_t column, float sum) {
  if (row >= args.rows || column >= args.n) return;
  Out* out = static_cast<Out*>(args.out) + row * args.out_step + column;
  float value = args.scale * sum;
  if (args.add) value += ToFloat(*out);
  if (args.bias != nullptr) value += ToFloat(static_cast<const Out*>(args.bias)[column]);
  if (args.relu) value = fmaxf(value, 0.0f);
  *out = FromFloat<Out>(value);
}

template <class T, class Out, int kTiles>
__global__ void __launch_bounds__(kWarp) SkinnyProduct(const __grid_constant__ SkinnyProductArgs args) {
  AwaitPredecessors();
  auto* const stages = DynamicShared<SkinnyStage<T, kTiles>>();
  const int lane = threadIdx.x;
  const int32_t first = static_cast<int32_t>(blockIdx.x) * kColumns;
  const T* weight = static_cast<const T*>(args.weight) + first * args.weight_step;
  const auto load = [&](int stage, int32_t k) {
    LoadRows<kColumns>(stages[stage].weight, weight, args.weight_step, args.n - first, args, k);
    LoadRows<kTiles * kTileRows>(stages[stage].x, args.x, args.x_step, args.rows, args, k);
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
    for (int i = 0; i < 4; ++i) {
      Store<Out>(args, tile * kTileRows + lane % 4 * 2 + i % 2, first + lane / 4 + i / 2 * 8, sum[tile][i]);
    }
  }
}

bool Valid(const SkinnyProductArgs& args) {
  if (args.type != DataType::kBFloat16 && args.type != DataType::kFloat16) return false;
  if (args.out_type != args.type && args.out_type != DataType::kFloat32) return false;
  if (args.rows < 1 || args.rows > kMaxSkinnyRows || args.n < 1 || args.k < 8 || args.k % kChunk != 0) return false;
  if (args.x_step < args.k || args.weight_step < args.k || args.out_step < args.n) return false;
  if (args.x_step % kChunk != 0 || args.weight_step % kChunk != 0) return false;
  if (args.x == nullptr || args.weight == nullptr || args.out == nullptr) return false;
  const int64_t element = SizeOf(args.out_type);
  return IsAligned(args.x) && IsAligned(args.weight) && IsAligned(args.out, element) && IsAligned(args.bias, element);
}

template <class T, class Out>
LaunchError Start(const SkinnyProductArgs& args, CudaStream stream) {
  const unsigned blocks = (static_cast<unsigned>(args.n) + kColumns - 1) / kColumns;
  const auto launch = [&](auto kernel, size_t stage_bytes) {
    return Launch(kernel, {blocks, kWarp, kStages * stage_bytes}, stream, args);
  };
  if (args.rows <= kTileRows) return launch(SkinnyProduct<T, Out, 1>, sizeof(SkinnyStage<T, 1>));
  return launch(SkinnyProduct<T, Out, 2>, sizeof(SkinnyStage<T, 2>));
}

}  // namespace

LaunchError SkinnyProductCuda(const SkinnyProductArgs& args, CudaStream stream) {
  if (!Valid(args)) return LaunchError::kInvalidArgument;
  return WithType(args.type, [&]<class T>(T) {
    if constexpr (__is_same(T, float)) {
      return LaunchError::kInvalidArgument;
    } else {
      return args.out_type == DataType::kFloat32 ? Start<T, float>(args, stream) : Start<T, T>(args, stream);
    }
  });
}

}  // namespace beamline::kernels
