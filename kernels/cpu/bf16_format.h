// SPDX-License-Identifier: Apache-2.0
//
// bf16 numbers, and the panels of the bf16 product: [ceil(k / 32)][16 pairs of k][kPanel][2], filled up with zeros. One
// block of 32 is a tile of AMX.
#pragma once

#include <bit>
#include <cstdint>

#include "cpu/gemm_panels.h"

namespace beamline::kernels {
namespace {

constexpr int64_t kBf16Depth = 32;

// To nearest even; NaN stays NaN. No branch, so that loops over it are vector code.
inline uint16_t ToBf16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = bits + 0x7fff + (bits >> 16 & 1);
  return static_cast<uint16_t>(((bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : rounded) >> 16);
}
inline float FromBf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

struct Bf16Format {
  static int64_t PaddedDepth(int64_t k) { return (k + kBf16Depth - 1) / kBf16Depth * kBf16Depth; }
  static int64_t PanelBytes(int64_t k) { return PaddedDepth(k) * kPanel * static_cast<int64_t>(sizeof(uint16_t)); }
  static void PackPanel(const PanelSource& source, char* to) {
    uint16_t* panel = reinterpret_cast<uint16_t*>(to);
    for (int64_t i = 0; i < PaddedDepth(source.k); i += 2) {
      for (int64_t j = 0; j < kPanel; ++j) {
        *panel++ = ToBf16(source.At(j, i));
        *panel++ = ToBf16(source.At(j, i + 1));
      }
    }
  }
};

}  // namespace
}  // namespace beamline::kernels
