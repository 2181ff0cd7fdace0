// SPDX-License-Identifier: Apache-2.0
//
// The fp32 product: a panel is [k][kPanel], rows are read where they are.
#pragma once

#include "cpu/fp32_tile.h"
#include "cpu/gemm_driver.h"
#include "cpu/gemm_panels.h"

namespace beamline::kernels {
namespace {

struct Fp32Format {
  static int64_t PanelBytes(int64_t k) { return k * kPanel * static_cast<int64_t>(sizeof(float)); }
  static void PackPanel(const PanelSource& source, char* to) {
    float* panel = reinterpret_cast<float*>(to);
    for (int64_t i = 0; i < source.k; ++i) {
      for (int64_t j = 0; j < kPanel; ++j) *panel++ = source.At(j, i);
    }
  }
};

class Fp32Kernel {
 public:
  using Format = Fp32Format;
  static constexpr int kTileRows = kernels::kTileRows;
  static constexpr int TilePanels(int rows) { return kernels::TilePanels(rows); }
  static constexpr int64_t kDepth = 1024;  // 256, which fits the first cache level better, was slower
  static int64_t BlockRows(int64_t k) { return std::clamp<int64_t>((64 << 10) / k, 24, 240); }
  static int64_t RowBytes(int64_t) { return 0; }
  static int64_t PanelBytes(int64_t k) { return Format::PanelBytes(k); }
  static constexpr bool kEqualTiles = true;

  explicit Fp32Kernel(const GemmArgs& args) : args_(args) {}
  void Prepare(int64_t, int, char*) const {}
  void Tile(const TileJob& job) const {
    (job.panels == 1 ? kNarrowTiles
                     : kWideTiles)[job.rows - 1]({.a = args_.a + job.row * args_.lda + job.k_begin,
                                                  .row_step = args_.lda,
                                                  .k_step = 1,
                                                  .b = reinterpret_cast<const float*>(job.panel) + job.k_begin * kPanel,
                                                  .b_step = kPanel,
                                                  .panel_step = kPanel * args_.k,
                                                  .k = job.k_end - job.k_begin,
                                                  .out = job.out,
                                                  .out_step = job.out_step,
                                                  .add = job.k_begin > 0});
  }

 private:
  const GemmArgs& args_;
};

}  // namespace
}  // namespace beamline::kernels
