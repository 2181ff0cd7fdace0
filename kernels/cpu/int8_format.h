// SPDX-License-Identifier: Apache-2.0
//
// Quantising for the int8 product, and its panels: the kPanel columns' scales (float) and the sums to start from
// (int32), then [k / kGroup][kPanel][kGroup] values, k filled up with zeros to a multiple of kInt8Depth. kGroup values
// of k are what an instruction multiplies and adds into one int32.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "cpu/gemm_panels.h"

namespace beamline::kernels {
namespace {

constexpr int64_t kInt8Depth = 64;  // of a tile of AMX
constexpr float kInt8Range = 127;

// The scale of values whose largest magnitude is `largest`, and what to multiply them with before rounding.
struct Int8Scale {
  float scale = 0;
  float inverse = 0;

  explicit Int8Scale(float largest) : scale(largest / kInt8Range) {
    if (scale > 0 && largest < std::numeric_limits<float>::infinity()) inverse = kInt8Range / largest;
    // So small that its inverse overflows: zeros.
    if (!(inverse < std::numeric_limits<float>::infinity())) inverse = scale = 0;
  }
};

// x + 1.5 * 2^23 holds the nearest integer (ties to even) in its low bits, above those of kRoundedZero.
constexpr float kRoundToInteger = 12582912.0f;
constexpr int32_t kRoundedZero = 0x4b400000;

inline int32_t RoundToInt8(float x) { return std::bit_cast<int32_t>(x + kRoundToInteger) - kRoundedZero; }

struct Int8Header {
  float scale[kPanel];
  int32_t start[kPanel];
};

// kOffset is what rows carry besides their values (instructions that take unsigned rows): sums start without it.
template <int kGroupSize, int kOffset>
struct Int8Format {
  static constexpr int kGroup = kGroupSize;
  static int64_t PaddedDepth(int64_t k) { return (k + kInt8Depth - 1) / kInt8Depth * kInt8Depth; }
  static int64_t PanelBytes(int64_t k) { return static_cast<int64_t>(sizeof(Int8Header)) + PaddedDepth(k) * kPanel; }
  static void PackPanel(const PanelSource& source, char* to) {
    Int8Header& header = *reinterpret_cast<Int8Header*>(to);
    int8_t* values = reinterpret_cast<int8_t*>(to + sizeof(Int8Header));
    for (int64_t j = 0; j < kPanel; ++j) {
      float largest = 0, zero = 0;  // zero: NaN of what is not finite
      for (int64_t i = 0; i < source.k; ++i) {
        largest = std::max(largest, std::abs(source.At(j, i)));
        zero += source.At(j, i) * 0.0f;
      }
      Int8Scale scale(largest);
      const bool finite = zero == 0;
      if (!finite) scale.scale = std::numeric_limits<float>::quiet_NaN();
      header.scale[j] = scale.scale;
      header.start[j] = 0;
      for (int64_t i = 0; i < PaddedDepth(source.k); ++i) {
        const int32_t value = finite ? RoundToInt8(source.At(j, i) * scale.inverse) : 0;
        header.start[j] -= kOffset * value;
        values[(i / kGroup * kPanel + j) * kGroup + i % kGroup] = static_cast<int8_t>(value);
      }
    }
  }
};

}  // namespace
}  // namespace beamline::kernels
