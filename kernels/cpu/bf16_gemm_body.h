// SPDX-License-Identifier: Apache-2.0
//
// The bf16 product on vectors without bf16 instructions: a bf16 number is the upper half of an fp32 one, so a shift or
// a mask makes it fp32, and products of two are exact. Rows are rounded and kept as fp32.
#pragma once

#include <array>
#include <utility>

#include "cpu/bf16_format.h"
#include "cpu/gemm_driver.h"

namespace beamline::kernels {
namespace {

// An even and an odd sum per vector, and as many as fit the registers.
#if defined(__AVX512F__)
constexpr int kBf16Rows = 12;
constexpr int Bf16Panels(int rows) { return rows <= 3 ? 4 : rows <= 6 ? 2 : 1; }
#else
constexpr int kBf16Rows = 3;
constexpr int Bf16Panels(int rows) { return rows == 1 ? 2 : 1; }
#endif

struct Bf16Block {
  const float* a;  // [rows, row_step]
  int64_t row_step;
  const char* b;
  int64_t panel_bytes;
  int64_t blocks;  // of kBf16Depth
  float* out;
  int64_t out_step;
  bool add;  // to `out`
};

// The even (shift 16) or odd (shift 0) values of a pair of k, in one panel's columns.
template <bool kOdd>
BEAMLINE_INLINE Vector HalfOfPairs(const char* from) {
  IntVector both;
  std::memcpy(&both, from, sizeof(both));
  both = kOdd ? both & static_cast<int32_t>(0xffff0000) : both << 16;
  Vector values;
  std::memcpy(&values, &both, sizeof(values));
  return values;
}

template <bool kOdd, int kRows, int kColumns>
BEAMLINE_INLINE void AddHalf(const Bf16Block& args, const float* a, const char* b, Vector (&sum)[kRows][kColumns]) {
  Vector columns[kColumns];
#pragma GCC unroll 16
  for (int v = 0; v < kColumns; ++v) {
    columns[v] = HalfOfPairs<kOdd>(b + v / kVectors * args.panel_bytes + v % kVectors * sizeof(Vector));
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const Vector x = Broadcast(a[r * args.row_step]);
#pragma GCC unroll 16
    for (int v = 0; v < kColumns; ++v) sum[r][v] = Fma(x, columns[v], sum[r][v]);
  }
}

template <int kRows, int kPanels>
void Bf16Tile(const Bf16Block& args) {
  const float* a = args.a;
  const char* b = args.b;
  for (int64_t block = 0; block < args.blocks; ++block) {
    Vector even[kRows][kPanels * kVectors], odd[kRows][kPanels * kVectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v) even[r][v] = odd[r][v] = Vector{};
    }
    for (int pair = 0; pair < kBf16Depth / 2; ++pair, a += 2, b += kPanel * sizeof(float)) {
      AddHalf<false>(args, a, b, even);
      AddHalf<true>(args, a + 1, b, odd);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v) {
        float* to = args.out + r * args.out_step + v * kVectorFloats;
        const Vector before = block == 0 && !args.add ? Vector{} : LoadVector(to);
        StoreVector(to, before + (even[r][v] + odd[r][v]));
      }
    }
  }
}

template <bool kWide, size_t... kRows>
constexpr std::array<void (*)(const Bf16Block&), sizeof...(kRows)> Bf16Tiles(std::index_sequence<kRows...>) {
  return {&Bf16Tile < kRows + 1, kWide ? Bf16Panels(kRows + 1) : 1 > ...};
}

class Bf16Kernel {
 public:
  using Format = Bf16Format;
  static constexpr int kTileRows = kBf16Rows;
  static constexpr int TilePanels(int rows) { return Bf16Panels(rows); }
  static constexpr int64_t kDepth = 512;  // 16 KiB of a panel; whole blocks
  static int64_t BlockRows(int64_t k) { return std::clamp<int64_t>((64 << 10) / k, 24, 240); }
  static int64_t RowBytes(int64_t k) { return Format::PaddedDepth(k) * static_cast<int64_t>(sizeof(float)); }
  static int64_t PanelBytes(int64_t k) { return Format::PanelBytes(k); }
  static constexpr bool kEqualTiles = true;

  explicit Bf16Kernel(const GemmArgs& args) : args_(args), padded_(Format::PaddedDepth(args.k)) {}

  void Prepare(int64_t row, int rows, char* to) const {
    float* rounded = reinterpret_cast<float*>(to);
    for (int r = 0; r < rows; ++r) {
      const float* from = args_.a + (row + r) * args_.lda;
      for (int64_t i = 0; i < args_.k; ++i) *rounded++ = FromBf16(ToBf16(from[i]));
      for (int64_t i = args_.k; i < padded_; ++i) *rounded++ = 0;
    }
  }

  void Tile(const TileJob& job) const {
    static constexpr auto kNarrow = Bf16Tiles<false>(std::make_index_sequence<kBf16Rows>());
    static constexpr auto kWide = Bf16Tiles<true>(std::make_index_sequence<kBf16Rows>());
    (job.panels == 1 ? kNarrow
                     : kWide)[job.rows - 1]({.a = reinterpret_cast<const float*>(job.rows_begin) + job.k_begin,
                                             .row_step = padded_,
                                             .b = job.panel + Format::PanelBytes(job.k_begin),
                                             .panel_bytes = Format::PanelBytes(args_.k),
                                             .blocks = (Format::PaddedDepth(job.k_end) - job.k_begin) / kBf16Depth,
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
