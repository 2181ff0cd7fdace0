// SPDX-License-Identifier: Apache-2.0
//
// Tiles of the fp32 products: rows x panels of sums in registers, each one chain of multiply-adds over k.
#pragma once

#include <array>
#include <utility>

#include "beamline/kernels/packed_gemm.h"
#include "cpu/lanes.h"
#include "cpu/tile_shape.h"

namespace beamline::kernels {
namespace {

// Where a tile reads and writes. Element (row, i) of a is a[row * row_step + i * k_step]; row i of panel p of b is
// b[p * panel_step + i * b_step].
struct TileArgs {
  const float* a;
  int64_t row_step;
  int64_t k_step;
  const float* b;
  int64_t b_step;
  int64_t panel_step;
  int64_t k;
  float* out;  // [rows, panels * kPanel]
  int64_t out_step;
  bool add = false;  // go on with the sums in `out`: the same bits as one longer k
};

template <int kRows, int kPanels>
void Tile(const TileArgs& args) {
  // Unrolled early, or the accumulators would live on the stack.
  Vector sum[kRows][kPanels * kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      sum[r][v] = args.add ? LoadVector(args.out + r * args.out_step + v * kVectorFloats) : Vector{};
    }
  }
  const float* a = args.a;
  const float* b = args.b;
  // Four steps between branches: a loop of a few dozen is predicted to its end, one of a hundred is not.
#pragma GCC unroll 4
  for (int64_t i = 0; i < args.k; ++i, a += args.k_step, b += args.b_step) {
    Vector columns[kPanels * kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      const float* const from = b + v / kVectors * args.panel_step + v % kVectors * kVectorFloats;
      columns[v] = LoadVector(from);
      if (v % kVectors == 0) PrefetchPanel(from + kPanels * args.panel_step);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const Vector x = Broadcast(a[r * args.row_step]);
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v) sum[r][v] = Fma(x, columns[v], sum[r][v]);
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v)
      StoreVector(args.out + r * args.out_step + v * kVectorFloats, sum[r][v]);
  }
}

using TileFunction = void (*)(const TileArgs&);
template <bool kWide, size_t... kRows>
constexpr std::array<TileFunction, sizeof...(kRows)> TileTable(std::index_sequence<kRows...>) {
  return {&Tile < kRows + 1, kWide ? TilePanels(kRows + 1) : 1 > ...};
}
// Indexed by rows - 1: tiles of one panel, and of TilePanels(rows) panels.
constexpr auto kNarrowTiles = TileTable<false>(std::make_index_sequence<kTileRows>());
constexpr auto kWideTiles = TileTable<true>(std::make_index_sequence<kTileRows>());

}  // namespace
}  // namespace beamline::kernels
