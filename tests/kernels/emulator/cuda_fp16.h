// SPDX-License-Identifier: Apache-2.0
//
// fp16 of the emulator: the compiler's.
#pragma once

// NOLINTBEGIN(readability-identifier-naming): CUDA's names
struct __half {
  _Float16 value = 0;
};
struct __half2 {
  __half x, y;
};

inline float __half2float(__half half) { return static_cast<float>(half.value); }
inline __half __float2half_rn(float value) { return {static_cast<_Float16>(value)}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__float2half_rn(x), __float2half_rn(y)}; }
// NOLINTEND(readability-identifier-naming)
