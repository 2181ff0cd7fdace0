// SPDX-License-Identifier: Apache-2.0
//
// The tile registers of tile_gemm_body.h in the CPU: 0-3 sums, 4-5 rows, 6-7 columns. One object per thread at a time;
// the registers are configured while it lives. Assembly, because compilers' intrinsics take a register's number as a
// token of the preprocessor, and say nothing of the memory they read.
#pragma once

#include "cpu/tile_gemm_body.h"

namespace beamline::kernels {
namespace {

class AmxTiles {
 public:
  AmxTiles() {
    static constexpr Config kConfig;
    asm volatile("ldtilecfg %0" ::"m"(kConfig));
  }
  ~AmxTiles() { asm volatile("tilerelease"); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

  template <int kRowTiles, int kPanels>
  void Zero() {
    ZeroTile<0>();
    if constexpr (kPanels == 2) ZeroTile<1>();
    if constexpr (kRowTiles == 2) ZeroTile<2>();
    if constexpr (kRowTiles == 2 && kPanels == 2) ZeroTile<3>();
  }
  template <int kTile>
  void LoadRows(const char* from, int64_t step) {
    Load<4 + kTile>(from, step);
  }
  template <int kTile>
  void LoadColumns(const char* from) {
    Load<6 + kTile>(from, kTileBytes);
  }
  template <typename Product, int kRowTiles, int kPanels>
  void AddProducts() {
    AddTile<Product, 0, 0>();
    if constexpr (kPanels == 2) AddTile<Product, 0, 1>();
    if constexpr (kRowTiles == 2) AddTile<Product, 1, 0>();
    if constexpr (kRowTiles == 2 && kPanels == 2) AddTile<Product, 1, 1>();
  }
  template <int kRowTile, int kPanelOfTile>
  void Store(void* to, int64_t step) const {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(step * 4), "i"(2 * kRowTile + kPanelOfTile)
                 : "memory");
  }

 private:
  // Palette 1: every register has 16 rows of 64 bytes.
  struct alignas(64) Config {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Config) == 64);

  template <int kRegister>
  static void ZeroTile() {
    asm volatile("tilezero %%tmm%c0" ::"i"(kRegister));
  }
  template <int kRegister>
  static void Load(const char* from, int64_t step) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(step), "i"(kRegister) : "memory");
  }
  template <typename Product, int kRowTile, int kPanelOfTile>
  static void AddTile() {
    if constexpr (std::is_same_v<typename Product::Sum, float>) {
      asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(2 * kRowTile + kPanelOfTile), "i"(4 + kRowTile),
                   "i"(6 + kPanelOfTile));
    } else {
      asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(2 * kRowTile + kPanelOfTile), "i"(4 + kRowTile),
                   "i"(6 + kPanelOfTile));
    }
  }
};

using AmxBf16Kernel = TiledKernel<AmxTiles, Bf16Tiled>;
using AmxInt8Kernel = TiledKernel<AmxTiles, Int8Tiled>;

}  // namespace
}  // namespace beamline::kernels
