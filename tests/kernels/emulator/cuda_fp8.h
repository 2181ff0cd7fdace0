// SPDX-License-Identifier: Apache-2.0
//
// E4M3 of the emulator: sign, 4 bits of exponent (bias 7), 3 of mantissa, no infinity, largest value 448.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

enum __nv_saturation_t { __NV_SATFINITE };
enum __nv_fp8_interpretation_t { __NV_E4M3 };

inline float emulated_fp8_value(uint8_t bits) {
  const int exponent = bits >> 3 & 15, mantissa = bits & 7;
  if (exponent == 15 && mantissa == 7) return NAN;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                   : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  return (bits & 0x80) != 0 ? -size : size;
}

inline uint8_t __nv_cvt_float_to_fp8(float value, __nv_saturation_t, __nv_fp8_interpretation_t) {
  const uint8_t sign = std::signbit(value) ? 0x80 : 0;
  if (value != value) return sign | 0x7f;
  const float size = std::fabs(value);
  if (size >= 448.0f) return sign | 0x7e;
  const int exponent = size == 0 ? -6 : std::max(-6, std::ilogb(size));
  const int steps = static_cast<int>(std::nearbyint(std::ldexp(size, 3 - exponent)));  // of 2^(exponent - 3)
  // 8 steps are a normal number of this exponent, 16 the next one; fewer are subnormal.
  return sign | static_cast<uint8_t>(steps < 8 ? steps : ((exponent + 7) << 3) + steps - 8);
}
