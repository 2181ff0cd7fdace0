// SPDX-License-Identifier: Apache-2.0
//
// What all versions of the packed GEMM share: rows are prepared (rounded, quantised, packed) once per block of rows
// that stays in the second cache level; panels pass over the block, each over its tiles of rows while it is in the
// first; a finished tile gets bias, activation and gate while it is still there.
//
// A kernel is a type with
//   kTileRows, TilePanels(rows)      rows of a tile, and panels that it takes at once: how many sums fit the registers
//   kDepth                           values of k that a tile goes through at once
//   BlockRows(k), RowBytes(k)        rows of a block; bytes of a prepared row
//   PanelBytes(k)                    of a packed panel
//   kEqualTiles                      whether tiles share the rows as equally as can be, or all but the last are full
//   Kernel(args)
//   Prepare(row, rows, to)           the rows of one tile
//   Tile(job)                        sums of one tile
#pragma once

#include <algorithm>

#include "beamline/kernels/packed_gemm.h"
#include "cpu/gemm_panels.h"
#include "cpu/lanes.h"

namespace beamline::kernels {
namespace {

template <RowActivation kActivation>
BEAMLINE_INLINE Vector Activate(Vector x) {
  if constexpr (kActivation == RowActivation::kRelu) return Max(x, Vector{});
  if constexpr (kActivation == RowActivation::kGelu) return Gelu(x);
  if constexpr (kActivation == RowActivation::kGeluTanh) return GeluTanh(x);
  if constexpr (kActivation == RowActivation::kSilu) return x * Sigmoid(x);
  if constexpr (kActivation == RowActivation::kLeakyRelu) return WhereNegative(x, x * 0.01f, x);
  return x;
}

// One panel of a tile's sums: from[r] + bias -> activation -> to[r]; gated: activation(from[r]) * from[r + kPanel].
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

// Sums of `rows` prepared rows with `panels` panels over k in [k_begin, k_end), on top of those in `out` unless
// k_begin is 0.
struct TileJob {
  const char* rows_begin;  // prepared
  int64_t row;             // of the product
  int rows;
  const char* panel;  // the first one, packed
  int panels;
  int64_t k_begin, k_end;
  float* out;  // [rows, panels * kPanel]
  int64_t out_step;
};

constexpr int kMostPanels = 8;                     // that any kernel takes at once
constexpr int64_t kWholeDepth = int64_t{1} << 62;  // all of k at once

template <typename Kernel>
class GemmDriver {
 public:
  explicit GemmDriver(const GemmArgs& args)
      : args_(args),
        kernel_(args),
        tiles_((args.m + Kernel::kTileRows - 1) / Kernel::kTileRows),
        rows_of_tile_(Kernel::kEqualTiles ? args.m / std::max<int64_t>(1, tiles_) : Kernel::kTileRows),
        longer_tiles_(Kernel::kEqualTiles ? args.m % std::max<int64_t>(1, tiles_) : 0),
        block_tiles_(std::max<int64_t>(1, BlockRows(args.m, args.k) / Kernel::kTileRows)),
        group_(args.gated ? 2 : 1),
        direct_panels_(args.gated ? 0 : args.n / kPanel),
        sums_(static_cast<float*>(args.scratch)),
        prepared_(static_cast<char*>(args.scratch) + SumBytes(BlockRows(args.m, args.k))) {}

  static int64_t ScratchBytes(int64_t m, int64_t k) {
    const int64_t rows = BlockRows(m, k);
    return SumBytes(rows) + rows * Kernel::RowBytes(k);
  }

  void Run() {
    if (tiles_ == 0) return;
    const int most_rows = static_cast<int>(std::min<int64_t>(Kernel::kTileRows, (args_.m + tiles_ - 1) / tiles_));
    const int wide = std::max(1, Kernel::TilePanels(most_rows) / group_);
    const int64_t wide_end = std::min(args_.panel_end, args_.gated ? PanelCount(args_.n) : direct_panels_);
    for (int64_t block = 0; block < tiles_; block += block_tiles_) {
      const int64_t end = std::min(tiles_, block + block_tiles_);
      block_row_ = FirstRow(block);
      for (int64_t tile = block; tile < end; ++tile) {
        kernel_.Prepare(FirstRow(tile), TileRows(tile), Prepared(FirstRow(tile)));
      }
      for (int64_t panel = args_.panel_begin; panel < args_.panel_end;) {
        const int panels = panel + wide <= wide_end ? wide : 1;
        for (int64_t k = 0; k < args_.k; k += Kernel::kDepth) {
          for (int64_t tile = block; tile < end; ++tile) Sum(tile, panel, panels, k);
        }
        panel += panels;
      }
    }
  }

 private:
  static int64_t BlockRows(int64_t m, int64_t k) {
    const auto whole_tiles = [](int64_t rows) {
      return (rows + Kernel::kTileRows - 1) / Kernel::kTileRows * Kernel::kTileRows;
    };
    return std::min(whole_tiles(m), whole_tiles(Kernel::BlockRows(k)));
  }
  // Of the sums that do not fit c: two packed panels of every row of a block, or more of a few rows.
  static int64_t SumBytes(int64_t rows) {
    const int64_t floats = std::max<int64_t>(2 * rows, kMostPanels * Kernel::kTileRows) * kPanel;
    return floats * static_cast<int64_t>(sizeof(float));
  }

  // Without a division: small products ask for it every few hundred cycles.
  int64_t FirstRow(int64_t tile) const {
    return std::min(tile * rows_of_tile_ + std::min(tile, longer_tiles_), args_.m);
  }
  int TileRows(int64_t tile) const { return static_cast<int>(FirstRow(tile + 1) - FirstRow(tile)); }
  char* Prepared(int64_t row) const { return prepared_ + (row - block_row_) * Kernel::RowBytes(args_.k); }

  // One tile over [k, k + kDepth).
  void Sum(int64_t tile, int64_t panel, int panels, int64_t k) {
    const bool direct = panel + panels <= direct_panels_;
    const int64_t row = FirstRow(tile), panel_bytes = Kernel::PanelBytes(args_.k);
    const int packed_panels = group_ * panels;
    const int64_t step = direct ? args_.ldc : packed_panels * kPanel;
    const TileJob whole{.rows_begin = Prepared(row),
                        .row = row,
                        .rows = TileRows(tile),
                        .panel = static_cast<const char*>(args_.b) + panel * group_ * panel_bytes,
                        .panels = packed_panels,
                        .k_begin = k,
                        .k_end = std::min(args_.k, k + Kernel::kDepth),
                        .out = direct ? args_.c + row * step + panel * kPanel : sums_ + (row - block_row_) * step,
                        .out_step = step};
    TileJob job = whole;
    for (int done = 0; done < packed_panels; done += job.panels) {
      job.panels = done + Kernel::TilePanels(job.rows) <= packed_panels ? Kernel::TilePanels(job.rows) : 1;
      job.panel = whole.panel + done * panel_bytes;
      job.out = whole.out + done * kPanel;
      kernel_.Tile(job);
    }
    if (whole.k_end == args_.k) Finish(whole, panel, panels, direct);
  }

  void Finish(const TileJob& tile, int64_t panel, int panels, bool direct) const {
    if (direct && args_.bias == nullptr && args_.activation == RowActivation::kNone) return;
    for (int p = 0; p < panels; ++p) {
      const int64_t column = (panel + p) * kPanel;
      kernels::Finish(args_.activation,
                      {.from = tile.out + p * group_ * kPanel,
                       .from_step = tile.out_step,
                       .bias = args_.bias == nullptr ? nullptr : args_.bias + column,
                       .gated = args_.gated,
                       .to = args_.c + tile.row * args_.ldc + column,
                       .to_step = args_.ldc,
                       .columns = std::min(kPanel, args_.n - column)},
                      tile.rows);
    }
  }

  const GemmArgs& args_;
  Kernel kernel_;
  const int64_t tiles_;
  const int64_t rows_of_tile_;
  const int64_t longer_tiles_;  // the first ones, which have a row more
  const int64_t block_tiles_;
  const int group_;              // packed panels of one panel of c
  const int64_t direct_panels_;  // full panels that are summed in c itself
  float* const sums_;            // of the others
  char* const prepared_;
  int64_t block_row_ = 0;
};

// The table entry of a kernel, whose Format packs its panels.
template <typename Kernel>
constexpr PackedGemm MakePackedGemm(const char* name) {
  return {name, &PackedBytes<typename Kernel::Format>, &PackWeight<typename Kernel::Format>,
          &GemmDriver<Kernel>::ScratchBytes, [](const GemmArgs& args) { GemmDriver<Kernel>(args).Run(); }};
}

}  // namespace
}  // namespace beamline::kernels
