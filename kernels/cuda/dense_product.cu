// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/product_cuda.h"
#include "cuda/device_attribute.cuh"
#include "cuda/launch.cuh"
#include "cuda/product_epilogue.cuh"
#include "cuda/quad.cuh"
#include "cuda/warpgroup_tile.cuh"
#include "cuda/warpgroups.cuh"
#include "cuda/weight_prefetch.cuh"

namespace beamline::kernels {
namespace {

constexpr int kEights = 4;  // of columns, that are stored together

struct OutPlace {
  int64_t row;
  int32_t column;
  int32_t width;  // of the result
};

// To memory, the pairs that this lane of the four that hold a row has of four eights of columns from a place on.
template <class Out>
__device__ void StoreEights(const ProductArgs& args, OutPlace place, const float (&pair)[2 * kEights]) {
  const int64_t row = place.row;
  const int32_t column = place.column, width = place.width;
  Out* const out = static_cast<Out*>(args.out) + row * args.out_step;
  const int lane = threadIdx.x % 4;
  if constexpr (__is_same(Out, float)) {
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
      const int32_t at = column + eight * 8 + lane * 2;
      const float low = pair[2 * eight], high = pair[2 * eight + 1];
      if (row >= args.rows || at >= width) continue;
      if (at + 1 < width && reinterpret_cast<uintptr_t>(out + at) % 8 == 0) {
        __stwb(reinterpret_cast<float2*>(out + at), float2{low, high});
      } else {
        out[at] = low;
        if (at + 1 < width) out[at + 1] = high;
      }
    }
  } else {
    const uint4 whole = GatherEights<Out>([&](int eight) { return float2{pair[2 * eight], pair[2 * eight + 1]}; });
    const int32_t at = column + lane * 8;
    if (row >= args.rows || at >= width) return;
    if (at + 8 <= width && reinterpret_cast<uintptr_t>(out + at) % 16 == 0) {
      __stwb(reinterpret_cast<uint4*>(out + at), whole);
      return;
    }
    Out values[8];
    __builtin_memcpy(values, &whole, sizeof(values));
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if (at + i < width) out[at + i] = values[i];
    }
  }
}

template <class T, class Out, class Shape, class Gate>
__global__ void __launch_bounds__(WarpgroupTile<T, Shape>::kThreads, WarpgroupTile<T, Shape>::kBlocks)
    DenseProduct(const __grid_constant__ ProductArgs args) {
#if BEAMLINE_COMPILES_WGMMA
  using Product = WarpgroupTile<T, Shape>;
  constexpr bool kGated = Gate::kExists;
  constexpr int kResults = kGated ? Product::kColumns / 2 : Product::kColumns;
  static_assert(kResults % (8 * kEights) == 0);
  const int32_t first_row = blockIdx.y * Product::kRows, first_column = blockIdx.x * kResults;
  const int32_t width = kGated ? args.n / 2 : args.n;
  const T* x = static_cast<const T*>(args.x);
  const T* weight = static_cast<const T*>(args.weight);
  const auto row = [&](int i) { return first_row + i < args.rows ? x + (first_row + i) * args.x_step : nullptr; };
  const auto column = [&](int i) {  // gates, then their values
    const int32_t of_result = first_column + i % kResults;
    return of_result < width ? weight + (of_result + (i < kResults ? 0 : width)) * args.weight_step : nullptr;
  };
  PrefetchRows<Product::kColumns, Product::kThreads>(column, args.k);
  AwaitPredecessorsAlone();
  auto& storage = *AlignedForWarpgroups<typename Product::Storage>(DynamicShared<unsigned char>());
  Product product;
  product.Multiply(storage, row, column, {args.k, weight});

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int32_t at = first_row + Product::Row(half);
#pragma unroll
    for (int first = 0; first < kResults / 8; first += kEights) {
      int32_t columns[2 * kEights];
      float value[2 * kEights];
#pragma unroll
      for (int i = 0; i < 2 * kEights; ++i) {
        const int eight = first + i / 2;
        columns[i] = first_column + Product::Column(eight) + i % 2;
        value[i] = product.Pair(half, eight)[i % 2];
        if constexpr (kGated) {
          value[i] = Gated<T, Gate::kKind>(args, value[i], product.Pair(half, eight + kResults / 8)[i % 2]);
        }
      }
      if constexpr (!kGated) Finish<Out>(args, at, columns, value);
      StoreEights<Out>(args, {at, first_column + first * 8, width}, value);
    }
  }
#else
  AwaitPredecessors();
#endif
}

// f of the kernel, and of its tile.
template <class T, class Out, class Gate, class F>
LaunchError WithTile(DenseTile tile, F f) {
  switch (tile) {
    case DenseTile::k64x64:
      return f(DenseProduct<T, Out, Tile64x64, Gate>, WarpgroupTile<T, Tile64x64>());
    case DenseTile::k64x128:
      return f(DenseProduct<T, Out, Tile64x128, Gate>, WarpgroupTile<T, Tile64x128>());
    case DenseTile::k128x256:
      return f(DenseProduct<T, Out, Tile128x256, Gate>, WarpgroupTile<T, Tile128x256>());
  }
  return LaunchError::kInvalidArgument;
}

}  // namespace

LaunchError DenseProductCuda(const ProductArgs& args, DenseTile tile, CudaStream stream) {
  if (!ValidProduct(args, 65535 * 64) || !HasWarpgroups()) return LaunchError::kInvalidArgument;
  const auto launch = [&]<class Tile>(auto kernel, const Tile&) {
    const unsigned columns = (static_cast<unsigned>(args.n) + Tile::kColumns - 1) / Tile::kColumns;
    const unsigned rows = (static_cast<unsigned>(args.rows) + Tile::kRows - 1) / Tile::kRows;
    return Launch(kernel, {dim3(columns, rows), Tile::kThreads, Tile::kBytes}, stream, args);
  };
  return WithProductTypes(
      args, [&]<class T, class Out, class Gate>(T, Out, Gate) { return WithTile<T, Out, Gate>(tile, launch); });
}

LaunchError DenseProductPrepare() {
  const auto allow = [](DenseTile tile, const ProductArgs& args) {
    return WithProductTypes(
        args, [&]<class T, class Out, class Gate>(T, Out, Gate) { return WithTile<T, Out, Gate>(tile, AllowTile); });
  };
  for (const DenseTile tile : {DenseTile::k64x64, DenseTile::k64x128, DenseTile::k128x256}) {
    for (const DataType type : {DataType::kBFloat16, DataType::kFloat16}) {
      LaunchError error = allow(tile, {.type = type, .out_type = DataType::kFloat32});
      if (error == LaunchError::kOk) error = allow(tile, {.type = type, .out_type = type});
      for (const ActivationKind gate : kProductGates) {
        if (error == LaunchError::kOk) error = allow(tile, {.type = type, .out_type = type, .gate = gate});
      }
      if (error != LaunchError::kOk) return error;
    }
  }
  return LaunchError::kOk;
}

}  // namespace beamline::kernels
