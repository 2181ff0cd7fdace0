// SPDX-License-Identifier: Apache-2.0
//
// Root-mean-square norm of rows (arXiv 1910.07467) on the device, with what surrounds it in a transformer fused in:
//   x   <- x + delta                          where delta is given; rounded to the type, as stored (in `sum`, if given)
//   out <- x / sqrt(mean(x^2) + epsilon) * weight
//   quantized <- out / row_scale as E4M3, row_scale = max(max |out| / 448, 2^-126), or 1 for a row of zeros
// Statistics and products are fp32; `quantized` is made from the unrounded products. Without an epsilon a row of zeros
// becomes NaNs.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline constexpr int32_t kMaxNormWidth = 16384;

// Rows are dense, arrays 16-byte aligned.
struct RmsNormArgs {
  DataType type = DataType::kFloat32;  // of x, delta, weight and out
  int64_t rows = 0;                    // 1..2^31 - 1
  int32_t width = 0;                   // multiple of 8, at most kMaxNormWidth
  float epsilon = 1e-6f;               // at least 0
  void* x = nullptr;                   // [rows][width]; written only where delta is given and sum is not
  const void* delta = nullptr;         // [rows][width] or null
  void* sum = nullptr;                 // [rows][width], with delta, or null; where given, x stays as it is
  const void* weight = nullptr;        // [width]
  void* out = nullptr;                 // [rows][width], or null with `quantized`; not `sum`, and x only without delta
  uint8_t* quantized = nullptr;        // [rows][width], with row_scale, or null
  float* row_scale = nullptr;          // [rows]
};

LaunchError RmsNormCuda(const RmsNormArgs& args, CudaStream stream);

}  // namespace beamline::kernels
