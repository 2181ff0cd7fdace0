// SPDX-License-Identifier: Apache-2.0
//
// The nonlinearity of a feed-forward layer on the device. Gated (SwiGLU, T5's gated GELU; arXiv 2002.05202): x holds
// all gates, then all values of a row, and out = f(gate) * value; else out = f(x). Computed in fp32. Quantised as in
// rms_norm_cuda.h where asked for.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

enum class ActivationKind : int { kSilu = 0, kRelu = 1, kGelu = 2, kGeluTanh = 3, kLeakyRelu = 4 };  // leaky slope 0.01
inline constexpr ActivationKind kLastActivation = ActivationKind::kLeakyRelu;

// Rows are dense, arrays 16-byte aligned.
struct ActivationArgs {
  DataType type = DataType::kFloat32;  // of x and out
  ActivationKind kind = ActivationKind::kSilu;
  bool gated = true;
  int64_t rows = 0;              // 1..2^31 - 1
  int32_t width = 0;             // of out; multiple of 8, at most kMaxRowWidth
  const void* x = nullptr;       // [rows][gated ? 2 * width : width]
  void* out = nullptr;           // [rows][width], or null with `quantized`; may be x where neither gated nor quantised
  uint8_t* quantized = nullptr;  // [rows][width] E4M3, with row_scale, or null
  float* row_scale = nullptr;    // [rows]
};

LaunchError ActivationCuda(const ActivationArgs& args, CudaStream stream);

}  // namespace beamline::kernels
