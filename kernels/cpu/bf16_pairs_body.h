// SPDX-License-Identifier: Apache-2.0
//
// The bf16 product by VDPBF16PS, which multiplies pairs of bf16 numbers and adds them to an fp32 sum: twice the rate of
// fp32's multiply-adds. A sum is one chain over k, of a pair the odd product first (Intel SDM).
#pragma once

#include <array>
#include <utility>

#include "cpu/bf16_format.h"
#include "cpu/gemm_driver.h"
#include "cpu/tile_shape.h"

namespace beamline::kernels {
namespace {

struct Bf16PairsTile {
  const uint16_t* a;  // [rows, row_step]
  int64_t row_step;
  const char* b;
  int64_t panel_bytes;
  int64_t pairs;
  float* out;
  int64_t out_step;
  bool add;  // go on with the sums in `out`
};

template <int kRows, int kPanels>
void SumBf16Pairs(const Bf16PairsTile& args) {
  static_assert(kVectors == 1, "a vector holds a panel's columns");
  Vector sum[kRows][kPanels];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels; ++v) {
      sum[r][v] = args.add ? LoadVector(args.out + r * args.out_step + v * kPanel) : Vector{};
    }
  }
  const uint16_t* a = args.a;
  const char* b = args.b;
#pragma GCC unroll 2
  for (int64_t i = 0; i < args.pairs; ++i, a += 2, b += kPanel * sizeof(float)) {
    __m512i columns[kPanels];
#pragma GCC unroll 16
    for (int v = 0; v < kPanels; ++v) {
      columns[v] = _mm512_loadu_si512(b + v * args.panel_bytes);
      PrefetchPanel(b + (v + kPanels) * args.panel_bytes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, a + r * args.row_step, sizeof(pair));
      const __m512i row = _mm512_set1_epi32(pair);
#pragma GCC unroll 16
      for (int v = 0; v < kPanels; ++v) {
        sum[r][v] =
            _mm512_dpbf16_ps(sum[r][v], reinterpret_cast<__m512bh>(row), reinterpret_cast<__m512bh>(columns[v]));
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels; ++v) StoreVector(args.out + r * args.out_step + v * kPanel, sum[r][v]);
  }
}

template <bool kWide, size_t... kRows>
constexpr std::array<void (*)(const Bf16PairsTile&), sizeof...(kRows)> Bf16PairsTiles(std::index_sequence<kRows...>) {
  return {&SumBf16Pairs < kRows + 1, kWide ? TilePanels(kRows + 1) : 1 > ...};
}

class Bf16PairsKernel {
 public:
  using Format = Bf16Format;
  static constexpr int kTileRows = kernels::kTileRows;
  static constexpr int TilePanels(int rows) { return kernels::TilePanels(rows); }
  static constexpr int64_t kDepth = 1024;  // 32 KiB of a panel; even
  static int64_t BlockRows(int64_t k) { return std::clamp<int64_t>((128 << 10) / k, 24, 240); }
  static int64_t RowBytes(int64_t k) { return Format::PaddedDepth(k) * static_cast<int64_t>(sizeof(uint16_t)); }
  static int64_t PanelBytes(int64_t k) { return Format::PanelBytes(k); }
  static constexpr bool kEqualTiles = true;

  explicit Bf16PairsKernel(const GemmArgs& args) : args_(args), padded_(Format::PaddedDepth(args.k)) {}

  void Prepare(int64_t row, int rows, char* to) const {
    uint16_t* rounded = reinterpret_cast<uint16_t*>(to);
    for (int r = 0; r < rows; ++r, rounded += padded_) {
      const float* from = args_.a + (row + r) * args_.lda;
      for (int64_t i = 0; i < args_.k; ++i) rounded[i] = ToBf16(from[i]);
      std::fill(rounded + args_.k, rounded + padded_, uint16_t{0});
    }
  }

  void Tile(const TileJob& job) const {
    static constexpr auto kNarrow = Bf16PairsTiles<false>(std::make_index_sequence<kTileRows>());
    static constexpr auto kWide = Bf16PairsTiles<true>(std::make_index_sequence<kTileRows>());
    (job.panels == 1 ? kNarrow
                     : kWide)[job.rows - 1]({.a = reinterpret_cast<const uint16_t*>(job.rows_begin) + job.k_begin,
                                             .row_step = padded_,
                                             .b = job.panel + Format::PanelBytes(job.k_begin),
                                             .panel_bytes = Format::PanelBytes(args_.k),
                                             .pairs = (job.k_end - job.k_begin + 1) / 2,
                                             .out = job.out,
                                             .out_step = job.out_step,
                                             .add = job.k_begin > 0});
  }

 private:
  const GemmArgs& args_;
  const int64_t padded_;
};

}  // namespace
}  // namespace beamline::kernels
