// SPDX-License-Identifier: Apache-2.0
//
// The CPU kernels that are compiled once per instruction set and chosen at run time. Functions are thread-safe,
// allocate nothing, and take whatever alignment there is. Elementwise results are the same bits on every instruction
// set; the products inside attention are where multiply-adds are fused, hence not on SSE2.
#pragma once

#include <cstdint>

#include "beamline/kernels/attention.h"

namespace beamline::kernels {

struct RmsNormArgs {
  int64_t rows = 0;
  int64_t d = 0;
  const float* x = nullptr;       // [rows, d]
  const float* weight = nullptr;  // [d]
  float epsilon = 0;
  float* y = nullptr;  // [rows, d]
};

struct AddGatedArgs {
  int64_t count = 0;
  const float* a = nullptr;
  const float* gate = nullptr;
  const float* b = nullptr;
  float* out = nullptr;
};

struct VectorOps {
  const char* name;
  void (*context_attention)(const ContextAttentionArgs& args);
  void (*lineage_attention)(const LineageAttentionArgs& args);
  // y = x / sqrt(mean(x^2) + epsilon) * weight, per row.
  void (*rms_norm)(const RmsNormArgs& args);
  void (*add)(const float* a, const float* b, int64_t count, float* out);
  // out += scale * x
  void (*add_scaled)(const float* x, float scale, int64_t count, float* out);
  // out = a + sigmoid(gate) * b
  void (*add_gated)(const AddGatedArgs& args);
};

// Versions this machine can run, the plainest first, the fastest last; `count` of them.
const VectorOps* AvailableVectorOps(int* count);

// The fastest.
const VectorOps& BestVectorOps();

}  // namespace beamline::kernels
