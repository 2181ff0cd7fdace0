// SPDX-License-Identifier: Apache-2.0
//
// The tile registers of tile_gemm_body.h in plain C++: what runs where nothing faster does, and what shows that the
// algorithm around AMX is right on CPUs that lack it.
#pragma once

#include "cpu/tile_gemm_body.h"

namespace beamline::kernels {
namespace {

// One row of rows with a tile of columns, 16 pairs of bf16 each: even and odd ones apart.
inline void AddRowProducts(const char* row, const char* columns, float* sums) {
  const uint16_t* a = reinterpret_cast<const uint16_t*>(row);
  const uint16_t* b = reinterpret_cast<const uint16_t*>(columns);
  float even[kTileSide] = {}, odd[kTileSide] = {};
  for (int pair = 0; pair < kTileSide; ++pair, a += 2, b += 2 * kTileSide) {
    const float a0 = FromBf16(a[0]), a1 = FromBf16(a[1]);
    for (int j = 0; j < kTileSide; ++j) {
      even[j] += a0 * FromBf16(b[2 * j]);
      odd[j] += a1 * FromBf16(b[2 * j + 1]);
    }
  }
  for (int j = 0; j < kTileSide; ++j) sums[j] += even[j] + odd[j];
}

// The same, 16 groups of four int8.
inline void AddRowProducts(const char* row, const char* columns, int32_t* sums) {
  const int8_t* a = reinterpret_cast<const int8_t*>(row);
  const int8_t* b = reinterpret_cast<const int8_t*>(columns);
  for (int group = 0; group < kTileSide; ++group, a += 4, b += 4 * kTileSide) {
    for (int j = 0; j < kTileSide; ++j) {
      for (int i = 0; i < 4; ++i) sums[j] += a[i] * b[4 * j + i];
    }
  }
}

template <typename Sum>
class PlainTiles {
 public:
  template <int kRowTiles, int kPanels>
  void Zero() {
    for (auto& row : sums_) {
      for (auto& tile : row) std::fill_n(tile, kTileSide * kTileSide, Sum{0});
    }
  }
  template <int kTile>
  void LoadRows(const char* from, int64_t step) {
    rows_[kTile] = from;
    row_step_ = step;
  }
  template <int kTile>
  void LoadColumns(const char* from) {
    columns_[kTile] = from;
  }
  template <typename, int kRowTiles, int kPanels>
  void AddProducts() {
    for (int r = 0; r < kRowTiles; ++r) {
      for (int p = 0; p < kPanels; ++p) {
        for (int i = 0; i < kTileSide; ++i) {
          AddRowProducts(rows_[r] + i * row_step_, columns_[p], sums_[r][p] + i * kTileSide);
        }
      }
    }
  }
  template <int kRowTile, int kPanelOfTile>
  void Store(Sum* to, int64_t step) const {
    for (int i = 0; i < kTileSide; ++i) {
      std::copy_n(sums_[kRowTile][kPanelOfTile] + i * kTileSide, kTileSide, to + i * step);
    }
  }

 private:
  const char* rows_[2] = {};
  const char* columns_[2] = {};
  int64_t row_step_ = 0;
  Sum sums_[2][2][kTileSide * kTileSide];
};

using PlainBf16Kernel = TiledKernel<PlainTiles<float>, Bf16Tiled>;
using PlainInt8Kernel = TiledKernel<PlainTiles<int32_t>, Int8Tiled>;

}  // namespace
}  // namespace beamline::kernels
