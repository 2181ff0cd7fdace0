// SPDX-License-Identifier: Apache-2.0
//
// exp(x) for x <= 0 within 0.9 ulp; 0 below -87. Cody-Waite reduction by log 2 and a polynomial of degree 6, whose
// relative error is 3e-9. Every product is added to without being rounded (a fused multiply-add, which has one right
// answer), in one order, on every instruction set and on the device: log-sum-exp, and with it a beam, does not depend
// on the machine. Host files that include this are compiled with -ffp-contract=off.
#pragma once

#include <cstdint>

#include "beamline/kernels/host_device.h"

namespace beamline::kernels {

// a * b + c, rounded once.
struct FusedInstruction {
  BEAMLINE_HD static inline __attribute__((always_inline)) float MultiplyAdd(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
    return __fmaf_rn(a, b, c);
#else
    return __builtin_fmaf(a, b, c);  // a call, and slow, where the function's target lacks the instruction
#endif
  }
};

// The same without the instruction. The product is exact in double; the sum is rounded to odd there, that is cut off,
// its last bit set if anything was lost, so that rounding it again to float goes where the exact sum would.
struct FusedInDouble {
  static inline __attribute__((always_inline)) float MultiplyAdd(float a, float b, float c) {
    const double product = static_cast<double>(a) * b, sum = product + c;
    const double addend = sum - product;
    const double lost = (product - (sum - addend)) + (c - addend);
    uint64_t bits, lost_bits;
    __builtin_memcpy(&bits, &sum, sizeof(bits));
    __builtin_memcpy(&lost_bits, &lost, sizeof(lost_bits));
    const uint64_t inexact = lost != 0 ? uint64_t{1} : uint64_t{0};
    const uint64_t away_from_zero = (bits ^ lost_bits) >> 63;
    bits = (bits - (inexact & away_from_zero)) | inexact;
    double odd;
    __builtin_memcpy(&odd, &bits, sizeof(odd));
    return static_cast<float>(odd);
  }
};

// REQUIRES: x <= 0, -inf included.
template <class Fused = FusedInstruction>
BEAMLINE_HD inline __attribute__((always_inline)) float ExpNonPositive(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
  const float shifted = Fused::MultiplyAdd(x, 1.44269504088896341f, kRound);
  const float n = shifted - kRound;
  const float r = Fused::MultiplyAdd(n, 2.12194440e-4f, Fused::MultiplyAdd(n, -0.693359375f, x));
  float p = 1.381454e-3f;
  p = Fused::MultiplyAdd(p, r, 8.368745e-3f);
  p = Fused::MultiplyAdd(p, r, 4.166839e-2f);
  p = Fused::MultiplyAdd(p, r, 1.6666521e-1f);
  p = Fused::MultiplyAdd(p, r, 4.9999994e-1f);
  p = Fused::MultiplyAdd(p, r, 1.0f);
  p = Fused::MultiplyAdd(p, r, 1.0f);
  uint32_t exponent, bits;  // p * 2^n, a normal number: n goes into the exponent
  __builtin_memcpy(&exponent, &shifted, sizeof(exponent));
  __builtin_memcpy(&bits, &p, sizeof(bits));
  bits += exponent << 23;
  __builtin_memcpy(&p, &bits, sizeof(p));
  return x < -87.0f ? 0.0f : p;
}

}  // namespace beamline::kernels
