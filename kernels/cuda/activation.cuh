// SPDX-License-Identifier: Apache-2.0
//
// The activations of activation_cuda.h: one text for all kernels that have them, of steps that the compiler may not
// fuse as it likes, so that their bits are the same.
#pragma once

#include <cuda_runtime.h>

#include "beamline/kernels/activation_cuda.h"

namespace beamline::kernels {

template <ActivationKind kKind>
__device__ inline float Activate(float x) {
  if constexpr (kKind == ActivationKind::kSilu) return x / __fadd_rn(1.0f, expf(-x));
  if constexpr (kKind == ActivationKind::kRelu) return x < 0.0f ? 0.0f : x;
  if constexpr (kKind == ActivationKind::kGelu) return 0.5f * x * __fadd_rn(1.0f, erff(x * 0.70710678118654752f));
  if constexpr (kKind == ActivationKind::kGeluTanh) {
    return 0.5f * x * __fadd_rn(1.0f, tanhf(0.79788456080286536f * __fmaf_rn(0.044715f * x * x, x, x)));
  }
  return x > 0.0f ? x : 0.01f * x;
}

}  // namespace beamline::kernels
