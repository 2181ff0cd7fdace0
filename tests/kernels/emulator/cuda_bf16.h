// SPDX-License-Identifier: Apache-2.0
//
// bf16 of the emulator: rounds to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
struct __nv_bfloat16 {
  uint16_t bits = 0;
};
struct __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value.bits) << 16;
  float wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if (value != value) return {0x7fff};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
// NOLINTEND(readability-identifier-naming)
