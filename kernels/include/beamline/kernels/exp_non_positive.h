// SPDX-License-Identifier: Apache-2.0
//
// exp(x) for x <= 0 within 2 ulp; 0 below the smallest normal number. Cody-Waite reduction by log 2 and the Cephes
// polynomial of degree 5. Every product and sum is rounded by itself, in one order, on every instruction set and on the
// device: log-sum-exp, and with it a beam, does not depend on the machine. Host files that include this are compiled
// with -ffp-contract=off.
#pragma once

#include <cstdint>

#include "beamline/kernels/host_device.h"

namespace beamline::kernels {

#if defined(__CUDA_ARCH__)
__device__ __forceinline__ float RoundedProduct(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float RoundedSum(float a, float b) { return __fadd_rn(a, b); }
#else
BEAMLINE_HD inline __attribute__((always_inline)) float RoundedProduct(float a, float b) { return a * b; }
BEAMLINE_HD inline __attribute__((always_inline)) float RoundedSum(float a, float b) { return a + b; }
#endif

// REQUIRES: x <= 0, -inf included.
BEAMLINE_HD inline __attribute__((always_inline)) float ExpNonPositive(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
  const float clamped = x < -87.0f ? -87.0f : x;
  const float shifted = RoundedSum(RoundedProduct(clamped, 1.44269504088896341f), kRound);
  const float n = shifted - kRound;
  const float r = RoundedSum(RoundedSum(clamped, -RoundedProduct(n, 0.693359375f)), RoundedProduct(n, 2.12194440e-4f));
  float p = 1.9875691500e-4f;
  p = RoundedSum(RoundedProduct(p, r), 1.3981999507e-3f);
  p = RoundedSum(RoundedProduct(p, r), 8.3334519073e-3f);
  p = RoundedSum(RoundedProduct(p, r), 4.1665795894e-2f);
  p = RoundedSum(RoundedProduct(p, r), 1.6666665459e-1f);
  p = RoundedSum(RoundedProduct(p, r), 5.0000001201e-1f);
  p = RoundedSum(RoundedSum(RoundedProduct(p, RoundedProduct(r, r)), r), 1.0f);
  int32_t exponent;
  __builtin_memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = static_cast<int32_t>(static_cast<uint32_t>(exponent) << 23) + 0x3f800000;
  float scale;
  __builtin_memcpy(&scale, &exponent, sizeof(scale));
  const float result = RoundedProduct(p, scale);
  return x < -87.0f ? 0.0f : result;
}

}  // namespace beamline::kernels
