// SPDX-License-Identifier: Apache-2.0
//
// fp16 of the emulator: the compiler's.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
struct __half {
  _Float16 value = 0;
};
struct __half2 {
  __half x, y;
};

// By a table: a host without the instruction would call a function.
inline float __half2float(__half half) {
  static const std::vector<float> values = [] {
    std::vector<float> all(65536);
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const auto narrow = static_cast<uint16_t>(bits);
      __half value;
      std::memcpy(&value, &narrow, sizeof(value));
      all[bits] = static_cast<float>(value.value);
    }
    return all;
  }();
  uint16_t bits;
  std::memcpy(&bits, &half, sizeof(bits));
  return values[bits];
}
inline __half __float2half_rn(float value) { return {static_cast<_Float16>(value)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
// NOLINTEND(readability-identifier-naming)
