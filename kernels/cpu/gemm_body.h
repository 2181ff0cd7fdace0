// SPDX-License-Identifier: Apache-2.0
//
// The packed GEMM of packed_gemm.h: tiles of rows x panels are summed in registers. A block of rows stays in the second
// cache level while the panels pass over it, a panel in the first while the block's tiles do.
#pragma once

#include <algorithm>
#include <array>
#include <utility>

#include "beamline/kernels/packed_gemm.h"
#include "cpu/lanes.h"

namespace beamline::kernels {
namespace {

// Rows of a tile: as many accumulators as hide the latency of a multiply-add and fit the registers.
#if defined(__AVX512F__)
constexpr int kTileRows = 12;
constexpr int TilePanels(int rows) { return rows == 1 ? 8 : rows <= 5 ? 4 : 2; }
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
constexpr int TilePanels(int rows) { return rows == 1 ? 4 : rows <= 3 ? 2 : 1; }
#else
constexpr int kTileRows = 2;
constexpr int TilePanels(int rows) { return rows == 1 ? 2 : 1; }
#endif
constexpr int64_t kBlockFloats = 48 << 10;  // of a's rows that stay in the second cache level

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
};

template <int kRows, int kPanels>
void Tile(const TileArgs& args) {
  // Unrolled early, or the accumulators would live on the stack.
  Vector sum[kRows][kPanels * kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) sum[r][v] = Vector{};
  }
  const float* a = args.a;
  const float* b = args.b;
  for (int64_t i = 0; i < args.k; ++i, a += args.k_step, b += args.b_step) {
    Vector columns[kPanels * kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      columns[v] = LoadVector(b + v / kVectors * args.panel_step + v % kVectors * kVectorFloats);
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

template <RowActivation kActivation>
BEAMLINE_INLINE Vector Activate(Vector x) {
  if constexpr (kActivation == RowActivation::kRelu) return Max(x, Vector{});
  if constexpr (kActivation == RowActivation::kGelu) return Gelu(x);
  if constexpr (kActivation == RowActivation::kGeluTanh) return GeluTanh(x);
  if constexpr (kActivation == RowActivation::kSilu) return x * Sigmoid(x);
  if constexpr (kActivation == RowActivation::kLeakyRelu) return WhereNegative(x, x * 0.01f, x);
  return x;
}

// One panel of a finished tile: from[r] + bias -> activation -> to[r]; gated: activation(from[r]) * from[r + kPanel].
struct FinishArgs {
  const float* from;
  int64_t from_step;
  const float* bias;  // of this panel's columns, or null
  bool gated;
  float* to;
  int64_t to_step;
  int64_t columns;  // that exist
};

template <RowActivation kActivation>
void FinishPanel(const FinishArgs& args, int64_t rows) {
  const Lanes bias = args.bias == nullptr ? Lanes::All(0) : Lanes::LoadPart(args.bias, args.columns, 0);
  for (int64_t r = 0; r < rows; ++r) {
    const float* from = args.from + r * args.from_step;
    Lanes x = Lanes::Load(from);
    if (args.bias != nullptr) x = x + bias;
    x = Lanes::Make([&x](size_t i) { return Activate<kActivation>(x.v[i]); });
    if (args.gated) x = x * Lanes::Load(from + kPanel);
    float* to = args.to + r * args.to_step;
    if (args.columns == kPanel) {
      x.Store(to);
    } else {
      x.StorePart(to, args.columns);
    }
  }
}

void Finish(RowActivation activation, const FinishArgs& args, int64_t rows) {
  switch (activation) {
    case RowActivation::kNone:
      return FinishPanel<RowActivation::kNone>(args, rows);
    case RowActivation::kRelu:
      return FinishPanel<RowActivation::kRelu>(args, rows);
    case RowActivation::kGelu:
      return FinishPanel<RowActivation::kGelu>(args, rows);
    case RowActivation::kGeluTanh:
      return FinishPanel<RowActivation::kGeluTanh>(args, rows);
    case RowActivation::kSilu:
      return FinishPanel<RowActivation::kSilu>(args, rows);
    case RowActivation::kLeakyRelu:
      return FinishPanel<RowActivation::kLeakyRelu>(args, rows);
  }
}

// Rows [row, row + rows) of c in the panels [panel, panel + panels).
void GemmTile(const GemmArgs& args, int64_t row, int rows, int64_t panel, int panels) {
  const int64_t panel_floats = kPanel * args.k;
  TileArgs tile{.a = args.a + row * args.lda,
                .row_step = args.lda,
                .k_step = 1,
                .b = args.b + (args.gated ? 2 : 1) * panel * panel_floats,
                .b_step = kPanel,
                .panel_step = panel_floats,
                .k = args.k,
                .out = args.c + row * args.ldc + panel * kPanel,
                .out_step = args.ldc};
  const int64_t columns = std::min(panels * kPanel, args.n - panel * kPanel);
  FinishArgs finish{.from = tile.out,
                    .from_step = args.ldc,
                    .bias = args.bias == nullptr ? nullptr : args.bias + panel * kPanel,
                    .gated = args.gated,
                    .to = tile.out,
                    .to_step = args.ldc,
                    .columns = columns};
  alignas(64) float unfinished[kTileRows * 2 * kPanel];
  if (args.gated || columns < panels * kPanel) {  // single panels only
    tile.out = unfinished;
    tile.out_step = 2 * kPanel;
    kNarrowTiles[rows - 1](tile);
    if (args.gated) {
      tile.b += panel_floats;
      tile.out += kPanel;
      kNarrowTiles[rows - 1](tile);
    }
    finish.from = unfinished;
    finish.from_step = 2 * kPanel;
    return Finish(args.activation, finish, rows);
  }
  (panels == 1 ? kNarrowTiles : kWideTiles)[rows - 1](tile);
  if (args.bias == nullptr && args.activation == RowActivation::kNone) return;
  finish.columns = kPanel;
  for (int p = 0; p < panels; ++p) {
    Finish(args.activation, finish, rows);
    finish.from += kPanel;
    finish.to += kPanel;
    if (finish.bias != nullptr) finish.bias += kPanel;
  }
}

void Gemm(const GemmArgs& args) {
  const int64_t tiles = (args.m + kTileRows - 1) / kTileRows;  // of rows, as equal as can be
  const int64_t block_tiles = std::max<int64_t>(4, kBlockFloats / std::max<int64_t>(1, args.k) / kTileRows);
  const int64_t full_panels = args.gated ? 0 : args.n / kPanel;
  for (int64_t block = 0; block < tiles; block += block_tiles) {
    const int64_t block_end = std::min(tiles, block + block_tiles);
    const int wide = TilePanels(static_cast<int>((args.m + tiles - 1) / tiles));
    for (int64_t panel = args.panel_begin; panel < args.panel_end;) {
      const int panels = panel + wide <= std::min(full_panels, args.panel_end) ? wide : 1;
      for (int64_t t = block; t < block_end; ++t) {
        const int64_t begin = t * args.m / tiles;
        const int rows = static_cast<int>((t + 1) * args.m / tiles - begin);
        if (panels == 1 || TilePanels(rows) == panels) {
          GemmTile(args, begin, rows, panel, panels);
        } else {
          for (int p = 0; p < panels; ++p) GemmTile(args, begin, rows, panel + p, 1);
        }
      }
      panel += panels;
    }
  }
}

}  // namespace
}  // namespace beamline::kernels
