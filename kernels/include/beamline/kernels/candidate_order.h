// SPDX-License-Identifier: Apache-2.0
//
// The order of candidates in one 64-bit integer: score descending with -0 equal to +0, then node id ascending, which is
// code order. The smaller key is the better candidate, and no two candidates of a step share one, because a node has
// one parent: the order is total, and every selection algorithm gives the same beams.
#pragma once

#include <cstdint>

#include "beamline/kernels/host_device.h"

namespace beamline::kernels {

BEAMLINE_HD inline uint32_t FloatBits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
#endif
}

// Ascending as the score descends. REQUIRES: not NaN.
BEAMLINE_HD inline uint32_t ScoreKey(float score) {
  const uint32_t bits = FloatBits(score + 0.0f);  // -0 + 0 = +0
  return (bits & 0x80000000u) != 0 ? bits : 0x7fffffffu - bits;
}

BEAMLINE_HD inline uint64_t OrderKey(float score, uint32_t node) {
  return (static_cast<uint64_t>(ScoreKey(score)) << 32) | node;
}

}  // namespace beamline::kernels
