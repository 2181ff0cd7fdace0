// SPDX-License-Identifier: Apache-2.0
//
// The int8 product on vectors. With VNNI an instruction multiplies four unsigned bytes of a row with four signed ones
// of a column and adds them to an int32: rows carry 128 more, which the sums start without. Without it, bytes are
// widened to 16 bits and multiplied and added in pairs. Neither saturates.
#pragma once

#include <array>
#include <utility>

#include "cpu/gemm_driver.h"
#include "cpu/int8_format.h"
#include "cpu/int8_rows.h"
#include "cpu/tile_shape.h"

namespace beamline::kernels {
namespace {

// Four bytes or two 16-bit numbers of a row, of each of some columns.
#if defined(__AVX512F__)
using Packed = __m512i;
#else
using Packed = __m256i;
#endif
BEAMLINE_INLINE Packed AllOf(int32_t row) {
#if defined(__AVX512F__)
  return _mm512_set1_epi32(row);
#else
  return _mm256_set1_epi32(row);
#endif
}

BEAMLINE_INLINE IntVector LoadInts(const int32_t* from) {
  IntVector values;
  std::memcpy(&values, from, sizeof(values));
  return values;
}

#if defined(__AVX512VNNI__)
using RowValue = uint8_t;
BEAMLINE_INLINE Packed LoadColumns(const char* b) { return _mm512_loadu_si512(b); }
BEAMLINE_INLINE Packed AddProducts(Packed sum, Packed row, Packed columns) {
  return _mm512_dpbusd_epi32(sum, row, columns);
}
#elif defined(__AVXVNNI__)
using RowValue = uint8_t;
BEAMLINE_INLINE Packed LoadColumns(const char* b) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)); }
BEAMLINE_INLINE Packed AddProducts(Packed sum, Packed row, Packed columns) {
  return _mm256_dpbusd_avx_epi32(sum, row, columns);
}
#elif defined(__AVX512F__)
using RowValue = int16_t;
BEAMLINE_INLINE Packed LoadColumns(const char* b) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
}
BEAMLINE_INLINE Packed AddProducts(Packed sum, Packed row, Packed columns) {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(row, columns));
}
#else
using RowValue = int16_t;
BEAMLINE_INLINE Packed LoadColumns(const char* b) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
}
BEAMLINE_INLINE Packed AddProducts(Packed sum, Packed row, Packed columns) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(row, columns));
}
#endif
constexpr int kInt8Group = static_cast<int>(sizeof(int32_t) / sizeof(RowValue));
constexpr int kInt8Offset = kInt8Group == 4 ? 128 : 0;
constexpr int kColumnBytes = kVectorFloats * kInt8Group;  // of the columns of a vector

struct Int8Tile {
  const char* a;  // prepared rows
  int64_t row_bytes;
  const char* b;
  int64_t panel_bytes;
  int64_t groups;
  float* out;
  int64_t out_step;
};

template <int kRows, int kPanels>
void SumInt8(const Int8Tile& args) {
  // Not of the intrinsics' own type, which may alias anything: GCC would keep the sums in memory all the way, at half
  // the speed.
  IntVector sum[kRows][kPanels * kVectors];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      const Int8Header& header = *reinterpret_cast<const Int8Header*>(args.b + v / kVectors * args.panel_bytes);
      sum[r][v] = LoadInts(header.start + v % kVectors * kVectorFloats);
    }
  }
  const char* a = args.a + kInt8RowHeader;
  const char* b = args.b + sizeof(Int8Header);
#pragma GCC unroll 2
  for (int64_t i = 0; i < args.groups; ++i, a += sizeof(int32_t), b += kPanel * kInt8Group) {
    Packed columns[kPanels * kVectors];
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      const char* const from = b + v / kVectors * args.panel_bytes + v % kVectors * kColumnBytes;
      columns[v] = LoadColumns(from);
      if (v % kVectors == 0) PrefetchPanel(from + kPanels * args.panel_bytes);
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      int32_t group;
      std::memcpy(&group, a + r * args.row_bytes, sizeof(group));
      const Packed row = AllOf(group);
#pragma GCC unroll 16
      for (int v = 0; v < kPanels * kVectors; ++v)
        sum[r][v] = reinterpret_cast<IntVector>(AddProducts(reinterpret_cast<Packed>(sum[r][v]), row, columns[v]));
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    float row_scale;
    std::memcpy(&row_scale, args.a + r * args.row_bytes, sizeof(row_scale));
#pragma GCC unroll 16
    for (int v = 0; v < kPanels * kVectors; ++v) {
      const Int8Header& header = *reinterpret_cast<const Int8Header*>(args.b + v / kVectors * args.panel_bytes);
      const Vector scale = LoadVector(header.scale + v % kVectors * kVectorFloats);
      StoreVector(args.out + r * args.out_step + v * kVectorFloats,
                  __builtin_convertvector(sum[r][v], Vector) * (scale * Broadcast(row_scale)));
    }
  }
}

template <bool kWide, size_t... kRows>
constexpr std::array<void (*)(const Int8Tile&), sizeof...(kRows)> Int8Tiles(std::index_sequence<kRows...>) {
  return {&SumInt8 < kRows + 1, kWide ? TilePanels(kRows + 1) : 1 > ...};
}

class Int8Kernel {
 public:
  using Format = Int8Format<kInt8Group, kInt8Offset>;
  static constexpr int kTileRows = kernels::kTileRows;
  static constexpr int TilePanels(int rows) { return kernels::TilePanels(rows); }
  static constexpr int64_t kDepth = kWholeDepth;
  static int64_t BlockRows(int64_t k) { return std::clamp<int64_t>((128 << 10) / k, 24, 240); }
  static int64_t RowBytes(int64_t k) {
    return kInt8RowHeader + Format::PaddedDepth(k) * static_cast<int64_t>(sizeof(RowValue));
  }
  static int64_t PanelBytes(int64_t k) { return Format::PanelBytes(k); }
  static constexpr bool kEqualTiles = true;

  explicit Int8Kernel(const GemmArgs& args) : args_(args), padded_(Format::PaddedDepth(args.k)) {}

  void Prepare(int64_t row, int rows, char* to) const {
    for (int r = 0; r < rows; ++r, to += RowBytes(args_.k)) {
      QuantiseRow<RowValue, kInt8Offset>(args_.a + (row + r) * args_.lda, args_.k, padded_, to);
    }
  }

  void Tile(const TileJob& job) const {
    static constexpr auto kNarrow = Int8Tiles<false>(std::make_index_sequence<kTileRows>());
    static constexpr auto kWide = Int8Tiles<true>(std::make_index_sequence<kTileRows>());
    (job.panels == 1 ? kNarrow : kWide)[job.rows - 1]({.a = job.rows_begin,
                                                       .row_bytes = RowBytes(args_.k),
                                                       .b = job.panel,
                                                       .panel_bytes = Format::PanelBytes(args_.k),
                                                       .groups = padded_ / kInt8Group,
                                                       .out = job.out,
                                                       .out_step = job.out_step});
  }

 private:
  const GemmArgs& args_;
  const int64_t padded_;
};

}  // namespace
}  // namespace beamline::kernels
