// SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels that are compiled once per instruction set and chosen at run time. Functions are thread-safe,
// allocate nothing, and take whatever alignment there is. Elementwise results are the same bits on every instruction
// set; the products inside attention are where multiply-adds are fused, hence not on SSE2.
#pragma once

#include <cstdint>

#include "beamline/kernels/attention.h"

namespace beamline::kernels {

struct VectorOps {
  const char* name;
  void (*context_attention)(const ContextAttentionArgs& args);
  void (*lineage_attention)(const LineageAttentionArgs& args);
  // y = x / sqrt(mean(x^2) + epsilon) * weight, per row of x [rows, d].
  void (*rms_norm)(const float* x, const float* weight, float epsilon, int64_t rows, int64_t d, float* y);
  void (*add)(const float* a, const float* b, int64_t count, float* out);
  // out += scale * x
  void (*add_scaled)(const float* x, float scale, int64_t count, float* out);
  // out = a + sigmoid(gate) * b
  void (*add_gated)(const float* a, const float* gate, const float* b, int64_t count, float* out);
};

// Versions this machine can run, the plainest first, the fastest last; `count` of them.
const VectorOps* AvailableVectorOps(int* count);

// The fastest.
const VectorOps& BestVectorOps();

}  // namespace beamline::kernels
