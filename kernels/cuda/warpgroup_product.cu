// SPDX-License-Identifier: Apache-2.0
//
// The grouped product by wgmma: a tile of places of one expert, and of its columns, or of as many gates and values.
#include "cuda/activation.cuh"
#include "cuda/device_attribute.cuh"
#include "cuda/grouped_tile.cuh"
#include "cuda/launch.cuh"
#include "cuda/quad.cuh"
#include "cuda/warpgroup_tile.cuh"
#include "cuda/warpgroups.cuh"

namespace beamline::kernels {
namespace {

template <class T, class Shape, bool kGated>
__global__ void __launch_bounds__(WarpgroupTile<T, Shape>::kThreads, WarpgroupTile<T, Shape>::kBlocks)
    WarpgroupProduct(const __grid_constant__ GroupedProductArgs args) {
  AwaitPredecessorsAlone();
#if BEAMLINE_COMPILES_WGMMA
  using Product = WarpgroupTile<T, Shape>;
  constexpr int kColumns = kGated ? Product::kColumns / 2 : Product::kColumns;  // of the result
  const Tile tile = TileOf(args, blockIdx.y, Product::kRows);
  if (tile.begin >= tile.end) return;
  auto& storage = *AlignedForWarpgroups<typename Product::Storage>(DynamicShared<unsigned char>());
  const int32_t first_column = blockIdx.x * kColumns, width = kGated ? args.n / 2 : args.n;
  const T* weight = static_cast<const T*>(args.weight) + int64_t{tile.expert} * args.n * args.k;
  const auto row = [&](int i) { return tile.begin + i < tile.end ? Row<T>(args, tile.begin + i) : nullptr; };
  const auto column = [&](int i) {  // gates, then their values
    const int32_t of_result = first_column + i % kColumns;
    return of_result < width ? weight + int64_t{of_result + (i < kColumns ? 0 : width)} * args.k : nullptr;
  };
  Product product;
  product.Multiply(storage, row, column, {args.k, weight});

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int32_t place = tile.begin + Product::Row(half);
    T* out = static_cast<T*>(args.out) + int64_t{place} * width;
#pragma unroll
    for (int eight = 0; eight < kColumns / 8; eight += 4) {
      const uint4 whole = GatherEights<T>([&](int i) {
        const float* pair = product.Pair(half, eight + i);
        float2 result{pair[0], pair[1]};
        if constexpr (kGated) {
          const float* value = product.Pair(half, eight + i + kColumns / 8);
          result.x = Activate<ActivationKind::kSilu>(pair[0]) * value[0];
          result.y = Activate<ActivationKind::kSilu>(pair[1]) * value[1];
        }
        return result;
      });
      const int32_t at = first_column + (eight + static_cast<int>(threadIdx.x % 4)) * 8;
      if (place < tile.end && at < width) __stwb(reinterpret_cast<uint4*>(out + at), whole);
    }
  }
#endif
}

// f of the kernel, and of its tile.
template <class T, class F>
LaunchError WithTile(bool many_rows, bool gated, F f) {
  const auto of = [&]<class Shape>(Shape) {
    const WarpgroupTile<T, Shape> tile;
    return gated ? f(WarpgroupProduct<T, Shape, true>, tile) : f(WarpgroupProduct<T, Shape, false>, tile);
  };
  return many_rows ? of(Tile128x256()) : of(Tile64x128());
}

}  // namespace

bool TakesWarpgroups(const GroupedProductArgs& args) {
  return args.warpgroups && (args.type == DataType::kBFloat16 || args.type == DataType::kFloat16) && HasWarpgroups();
}

LaunchError WarpgroupProductCuda(const GroupedProductArgs& args, CudaStream stream) {
  const auto launch = [&]<class Tile>(auto kernel, const Tile&) {
    const dim3 grid((args.n + Tile::kColumns - 1) / Tile::kColumns, MostTiles(args, Tile::kRows));
    return Launch(kernel, {grid, Tile::kThreads, Tile::kBytes}, stream, args);
  };
  return WithType(args.type, [&]<class T>(T) {
    if constexpr (__is_same(T, float)) {
      return LaunchError::kInvalidArgument;
    } else {
      return WithTile<T>(/*many_rows=*/args.entries > args.experts * 64, args.gated, launch);
    }
  });
}

LaunchError WarpgroupProductPrepare() {
  for (const bool many_rows : {false, true}) {
    for (const bool gated : {false, true}) {
      for (const LaunchError error :
           {WithTile<__nv_bfloat16>(many_rows, gated, AllowTile), WithTile<__half>(many_rows, gated, AllowTile)}) {
        if (error != LaunchError::kOk) return error;
      }
    }
  }
  return LaunchError::kOk;
}

}  // namespace beamline::kernels
