// SPDX-License-Identifier: Apache-2.0
//
// The bf16 and the int8 product by tiles of 16 rows of 64 bytes, as AMX has them (Intel SDM volume 1, chapter 18): two
// tiles of rows times two panels, four tiles of sums. `Tiles` are the tile registers, the CPU's (amx_tiles.h) or plain
// ones (plain_tiles.h): packing, blocking and the order of sums are tested without AMX.
#pragma once

#include <type_traits>

#include "cpu/bf16_format.h"
#include "cpu/gemm_driver.h"
#include "cpu/int8_format.h"
#include "cpu/int8_rows.h"

namespace beamline::kernels {
namespace {

constexpr int kTileSide = 16;       // rows of a tile, columns of a tile of sums
constexpr int64_t kTileBytes = 64;  // of a row of a tile
constexpr int64_t kWholeTile = kTileSide * kTileBytes;

// What a product is made of: rows' values and how they are prepared, sums and how they become fp32.
struct Bf16Tiled {
  using Format = Bf16Format;
  using Sum = float;
  static constexpr int64_t kRowHeader = 0;
  static constexpr int64_t kValueBytes = sizeof(uint16_t);
  static void PrepareRow(const float* from, int64_t k, int64_t padded, char* to) {
    uint16_t* values = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < k; ++i) values[i] = ToBf16(from[i]);
    for (int64_t i = k; i < padded; ++i) values[i] = 0;
  }
};

struct Int8Tiled {
  using Format = Int8Format<4, 0>;
  using Sum = int32_t;
  static constexpr int64_t kRowHeader = kInt8RowHeader;
  static constexpr int64_t kValueBytes = sizeof(int8_t);
  static void PrepareRow(const float* from, int64_t k, int64_t padded, char* to) {
    QuantiseRow<int8_t, 0>(from, k, padded, to);
  }
};

template <typename Tiles, typename Product>
class TiledKernel {
 public:
  using Format = typename Product::Format;
  static constexpr int kTileRows = 2 * kTileSide;
  static constexpr int TilePanels(int) { return 2; }
  static constexpr int64_t kDepth = kWholeDepth;
  static int64_t BlockRows(int64_t k) { return std::clamp<int64_t>((128 << 10) / k, 64, 256); }
  static int64_t RowBytes(int64_t k) { return Product::kRowHeader + Format::PaddedDepth(k) * Product::kValueBytes; }
  static int64_t PanelBytes(int64_t k) { return Format::PanelBytes(k); }
  static constexpr bool kEqualTiles = false;

  explicit TiledKernel(const GemmArgs& args)
      : args_(args),
        row_bytes_(RowBytes(args.k)),
        panel_bytes_(PanelBytes(args.k)),
        blocks_(Format::PaddedDepth(args.k) * Product::kValueBytes / kTileBytes) {}

  // Rows that a tile lacks are zeros.
  void Prepare(int64_t row, int rows, char* to) const {
    const int64_t padded = Format::PaddedDepth(args_.k);
    for (int r = 0; r < rows; ++r, to += row_bytes_) {
      Product::PrepareRow(args_.a + (row + r) * args_.lda, args_.k, padded, to);
    }
    const int missing = (kTileSide - rows % kTileSide) % kTileSide;
    std::fill_n(to, missing * row_bytes_, char{0});
  }

  void Tile(const TileJob& job) {
    if (job.rows > kTileSide) {
      job.panels == 2 ? Run<2, 2>(job) : Run<2, 1>(job);
    } else {
      job.panels == 2 ? Run<1, 2>(job) : Run<1, 1>(job);
    }
  }

 private:
  using Sum = typename Product::Sum;

  template <int kRowTiles, int kPanels>
  void Run(const TileJob& job) {
    const char* a = job.rows_begin + Product::kRowHeader;
    const char* b = job.panel + panel_bytes_ - blocks_ * kWholeTile;
    tiles_.template Zero<kRowTiles, kPanels>();
    for (int64_t i = 0; i < blocks_; ++i, a += kTileBytes, b += kWholeTile) {
      tiles_.template LoadRows<0>(a, row_bytes_);
      if constexpr (kRowTiles == 2) tiles_.template LoadRows<1>(a + kTileSide * row_bytes_, row_bytes_);
      tiles_.template LoadColumns<0>(b);
      if constexpr (kPanels == 2) tiles_.template LoadColumns<1>(b + panel_bytes_);
      tiles_.template AddProducts<Product, kRowTiles, kPanels>();
    }
    Store<0, 0>(job);
    if constexpr (kPanels == 2) Store<0, 1>(job);
    if constexpr (kRowTiles == 2) Store<1, 0>(job);
    if constexpr (kRowTiles == 2 && kPanels == 2) Store<1, 1>(job);
  }

  // Sums of a tile of rows and a panel that exist.
  template <int kRowTile, int kPanelOfTile>
  void Store(const TileJob& job) {
    const int first = kRowTile * kTileSide, rows = std::min(kTileSide, job.rows - first);
    float* to = job.out + first * job.out_step + kPanelOfTile * kPanel;
    if constexpr (std::is_same_v<Sum, float>) {
      if (rows == kTileSide) return tiles_.template Store<kRowTile, kPanelOfTile>(to, job.out_step);
    }
    alignas(64) Sum sums[kTileSide * kTileSide];
    tiles_.template Store<kRowTile, kPanelOfTile>(sums, kTileSide);
    if constexpr (std::is_same_v<Sum, float>) {
      for (int r = 0; r < rows; ++r) std::copy_n(sums + r * kTileSide, kTileSide, to + r * job.out_step);
    } else {
      const auto& header = *reinterpret_cast<const Int8Header*>(job.panel + kPanelOfTile * panel_bytes_);
      for (int r = 0; r < rows; ++r) {
        float row_scale;
        std::memcpy(&row_scale, job.rows_begin + (first + r) * row_bytes_, sizeof(row_scale));
        for (int j = 0; j < kTileSide; ++j) {
          to[r * job.out_step + j] = static_cast<float>(sums[r * kTileSide + j]) * (header.scale[j] * row_scale);
        }
      }
    }
  }

  const GemmArgs& args_;
  const int64_t row_bytes_;
  const int64_t panel_bytes_;
  const int64_t blocks_;  // tiles along k
  Tiles tiles_;
};

}  // namespace
}  // namespace beamline::kernels
