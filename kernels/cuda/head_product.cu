// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/head_product_cuda.h"
#include "cuda/device_attribute.cuh"
#include "cuda/launch.cuh"
#include "cuda/quad.cuh"
#include "cuda/warpgroup_tile.cuh"
#include "cuda/warpgroups.cuh"
#include "cuda/weight_prefetch.cuh"

namespace beamline::kernels {
namespace {

template <class T, class Shape>
__global__ void __launch_bounds__(WarpgroupTile<T, Shape>::kThreads, WarpgroupTile<T, Shape>::kBlocks)
    HeadProduct(const __grid_constant__ HeadProductArgs args) {
#if BEAMLINE_COMPILES_WGMMA
  using Product = WarpgroupTile<T, Shape>;
  static_assert(Product::kPartColumns == kPartColumns);
  const int32_t first_row = blockIdx.y * Product::kRows, first_column = blockIdx.x * Product::kColumns;
  const T* x = static_cast<const T*>(args.x);
  const T* weight = static_cast<const T*>(args.weight);
  const auto row = [&](int i) { return first_row + i < args.rows ? x + (first_row + i) * args.x_step : nullptr; };
  const auto column = [&](int i) {
    return first_column + i < args.vocab ? weight + int64_t{first_column + i} * args.k : nullptr;
  };
  PrefetchRows<Product::kColumns, Product::kThreads>(column, args.k);
  AwaitPredecessorsAlone();
  auto& storage = *AlignedForWarpgroups<typename Product::Storage>(DynamicShared<unsigned char>());
  Product product;
  product.Multiply(storage, row, column, {args.k, weight});

  const int32_t parts = RowParts(args.vocab);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int32_t at = first_row + Product::Row(half);
#pragma unroll
    for (int part = 0; part < Product::kWarpgroups; ++part) {
      const int32_t begin = first_column + part * kPartColumns;
      float logit[kPartColumns / 8][2];
      float max = -INFINITY;
#pragma unroll
      for (int eight = 0; eight < kPartColumns / 8; ++eight) {
        const float* pair = product.Pair(half, part * kPartColumns / 8 + eight);
        const int32_t code = begin + Product::Column(eight);
        auto& logits = logit[eight];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const bool exists = code + i < args.vocab;
          const float bias = exists && args.bias != nullptr ? args.bias[code + i] : 0.0f;
          logits[i] = exists ? __fadd_rn(__fmul_rn(args.scale, pair[i]), bias) : -INFINITY;
          max = fmaxf(max, logits[i]);
        }
        if (at >= args.rows || code >= args.vocab) continue;
        float* to = args.logits + at * args.ld + code;
        if (code + 1 < args.vocab) {
          __stwb(reinterpret_cast<float2*>(to), float2{logits[0], logits[1]});
        } else {
          *to = logits[0];
        }
      }
      max = QuadMax(max);
      const float shift = max == -INFINITY ? 0.0f : max;
      float sum = 0;
#pragma unroll
      for (auto& pair : logit) sum += expf(pair[0] - shift) + expf(pair[1] - shift);
      sum = QuadSum(sum);
      if (at < args.rows && begin < args.vocab && threadIdx.x % 4 == 0) {
        args.parts[int64_t{at} * parts + begin / kPartColumns] = {max, sum};
      }
    }
  }
#else
  AwaitPredecessors();
#endif
}

// f of the kernel, and of its tile.
template <class T, class F>
LaunchError WithTile(bool many_rows, F f) {
  return many_rows ? f(HeadProduct<T, Tile128x256>, WarpgroupTile<T, Tile128x256>())
                   : f(HeadProduct<T, Tile64x128>, WarpgroupTile<T, Tile64x128>());
}

bool Valid(const HeadProductArgs& args) {
  if (args.type != DataType::kBFloat16 && args.type != DataType::kFloat16) return false;
  if (args.rows < 1 || args.rows > 65535 * 64 || args.vocab < 1 || args.vocab > kMaxVocabulary) return false;
  if (args.k < 8 || args.k > kMaxRowWidth || args.k % 8 != 0) return false;
  if (args.x_step < args.k || args.x_step % 8 != 0 || args.ld < args.vocab || args.ld % 4 != 0) return false;
  for (const void* array :
       {args.x, args.weight, static_cast<const void*>(args.logits), static_cast<const void*>(args.parts)}) {
    if (array == nullptr || !IsAligned(array)) return false;
  }
  return AreNaturallyAligned(args.bias) && HasWarpgroups();
}

}  // namespace

LaunchError HeadProductCuda(const HeadProductArgs& args, CudaStream stream) {
  if (!Valid(args)) return LaunchError::kInvalidArgument;
  const auto launch = [&]<class Tile>(auto kernel, const Tile&) {
    const dim3 grid((args.vocab + Tile::kColumns - 1) / Tile::kColumns, (args.rows + Tile::kRows - 1) / Tile::kRows);
    return Launch(kernel, {grid, Tile::kThreads, Tile::kBytes}, stream, args);
  };
  const bool many_rows = args.rows > 64;
  return args.type == DataType::kBFloat16 ? WithTile<__nv_bfloat16>(many_rows, launch)
                                          : WithTile<__half>(many_rows, launch);
}

LaunchError WarpgroupHeadPrepare() {
  for (const bool many_rows : {false, true}) {
    for (const LaunchError error :
         {WithTile<__nv_bfloat16>(many_rows, AllowTile), WithTile<__half>(many_rows, AllowTile)}) {
      if (error != LaunchError::kOk) return error;
    }
  }
  return LaunchError::kOk;
}

}  // namespace beamline::kernels
