// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/product_cuda.h"
#include "cuda/device_attribute.cuh"
#include "cuda/launch.cuh"
#include "cuda/product_epilogue.cuh"
#include "cuda/quad.cuh"
#include "cuda/warpgroup_tile.cuh"
#include "cuda/warpgroups.cuh"

namespace beamline::kernels {
namespace {

constexpr int kEights = 4;  // of columns, that are stored together

// To memory, what this lane of the four that hold a row has of four eights of columns from `column` on.
template <class Out>
__device__ void StoreFour(const ProductArgs& args, int64_t row, int32_t column, int32_t width,
                          const float (&value)[kEights][2]) {
  Out* const out = static_cast<Out*>(args.out) + row * args.out_step;
  const int lane = threadIdx.x % 4;
  if constexpr (__is_same(Out, float)) {
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
      const int32_t at = column + eight * 8 + lane * 2;
      if (row >= args.rows || at >= width) continue;
      if (at + 1 < width && reinterpret_cast<uintptr_t>(out + at) % 8 == 0) {
        __stwb(reinterpret_cast<float2*>(out + at), float2{value[eight][0], value[eight][1]});
      } else {
        out[at] = value[eight][0];
        if (at + 1 < width) out[at + 1] = value[eight][1];
      }
    }
  } else {
    uint32_t pairs[kEights];
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) pairs[eight] = Pack<Out>(value[eight][0], value[eight][1]);
    const uint4 whole = GatherEights(pairs);
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

template <class T, class Out, class Shape, class ItsGate>
__global__ void __launch_bounds__(WarpgroupTile<T, Shape>::kThreads, WarpgroupTile<T, Shape>::kBlocks)
    DenseProduct(const __grid_constant__ ProductArgs args) {
  AwaitPredecessors();
#if BEAMLINE_COMPILES_WGMMA
  using Product = WarpgroupTile<T, Shape>;
  constexpr bool kGated = ItsGate::kIs;
  constexpr int kResults = kGated ? Product::kColumns / 2 : Product::kColumns;
  static_assert(kResults % (8 * kEights) == 0);
  auto& storage = *AlignedForWarpgroups<typename Product::Storage>(DynamicShared<unsigned char>());
  const int32_t first_row = blockIdx.y * Product::kRows, first_column = blockIdx.x * kResults;
  const int32_t width = kGated ? args.n / 2 : args.n;
  const T* x = static_cast<const T*>(args.x);
  const T* weight = static_cast<const T*>(args.weight);
  const auto row = [&](int i) { return first_row + i < args.rows ? x + (first_row + i) * args.x_step : nullptr; };
  const auto column = [&](int i) {  // gates, then their values
    const int32_t of_result = first_column + i % kResults;
    return of_result < width ? weight + (of_result + (i < kResults ? 0 : width)) * args.weight_step : nullptr;
  };
  Product product;
  product.Multiply(storage, row, column, args.k, weight);

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int32_t at = first_row + Product::Row(half);
#pragma unroll
    for (int first = 0; first < kResults / 8; first += kEights) {
      float value[kEights][2] = {};
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) {
        const float* pair = product.Pair(half, first + eight);
        const int32_t code = first_column + Product::Column(first + eight);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          if (at >= args.rows || code + i >= width) continue;
          if constexpr (kGated) {
            value[eight][i] =
                Gated<T, ItsGate::kKind>(args, pair[i], product.Pair(half, first + eight + kResults / 8)[i]);
          } else {
            value[eight][i] = Finished<Out>(args, at, code + i, pair[i]);
          }
        }
      }
      StoreFour<Out>(args, at, first_column + first * 8, width, value);
    }
  }
#endif
}

// f of the kernel, and of its tile.
template <class T, class Out, class ItsGate, class F>
LaunchError WithShape(DenseTile tile, F f) {
  switch (tile) {
    case DenseTile::k64x64:
      return f(DenseProduct<T, Out, Tile64x64, ItsGate>, WarpgroupTile<T, Tile64x64>());
    case DenseTile::k64x128:
      return f(DenseProduct<T, Out, Tile64x128, ItsGate>, WarpgroupTile<T, Tile64x128>());
    case DenseTile::k128x256:
      return f(DenseProduct<T, Out, Tile128x256, ItsGate>, WarpgroupTile<T, Tile128x256>());
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
  return WithProductTypes(args, [&]<class T, class Out, class ItsGate>(T, Out, ItsGate) {
    return WithShape<T, Out, ItsGate>(tile, launch);
  });
}

LaunchError DenseProductPrepare() {
  const auto allow = []<class Tile>(auto kernel, const Tile&) { return AllowShared(kernel, Tile::kBytes); };
  for (const DenseTile tile : {DenseTile::k64x64, DenseTile::k64x128, DenseTile::k128x256}) {
    for (const DataType type : {DataType::kBFloat16, DataType::kFloat16}) {
      for (const ProductArgs& args : {ProductArgs{.type = type, .out_type = type},
                                      {.type = type, .out_type = DataType::kFloat32},
                                      {.type = type, .out_type = type, .gate = ActivationKind::kSilu},
                                      {.type = type, .out_type = type, .gate = ActivationKind::kGeluTanh}}) {
        const LaunchError error = WithProductTypes(args, [&]<class T, class Out, class ItsGate>(T, Out, ItsGate) {
          return WithShape<T, Out, ItsGate>(tile, allow);
        });
        if (error != LaunchError::kOk) return error;
      }
    }
  }
  return LaunchError::kOk;
}

}  // namespace beamline::kernels
