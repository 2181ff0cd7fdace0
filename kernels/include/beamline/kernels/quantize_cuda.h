// SPDX-License-Identifier: Apache-2.0
//
// FP8 on the device (E4M3; arXiv 2209.05433): rows as values and one scale each, as rms_norm_cuda.h and
// activation_cuda.h make them on their way, too; and what a product of such rows is worth.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

// quantized <- x / row_scale as E4M3, row_scale = max(max |x| of the row / 448, 2^-126), or 1 for a row of zeros.
// Arrays and rows of x are 16-byte aligned; the rows of `quantized` are dense.
struct QuantizeRowsArgs {
  DataType type = DataType::kFloat32;  // of x
  int64_t rows = 0;                    // 1..2^31 - 1
  int32_t width = 0;                   // multiple of 8, at most kMaxRowWidth
  int64_t x_step = 0;                  // elements between rows; at least width
  const void* x = nullptr;             // [rows][x_step]
  uint8_t* quantized = nullptr;        // [rows][width] E4M3
  float* row_scale = nullptr;          // [rows]
};

LaunchError QuantizeRowsCuda(const QuantizeRowsArgs& args, CudaStream stream);

// out <- x * row_scale[row] * column_scale[column]: a product of quantised rows with a quantised matrix, both without
// their scales, as what it stands for.
struct ScaleProductArgs {
  DataType type = DataType::kFloat32;   // of out
  int64_t rows = 0;                     // 1..2^31 - 1
  int32_t width = 0;                    // multiple of 8, at most kMaxRowWidth
  const float* x = nullptr;             // [rows][width]
  const float* row_scale = nullptr;     // [rows]
  const float* column_scale = nullptr;  // [width], 16-byte aligned
  int64_t out_step = 0;                 // elements between rows; at least width, multiple of 8
  void* out = nullptr;                  // [rows][out_step]
};

LaunchError ScaleProductCuda(const ScaleProductArgs& args, CudaStream stream);

}  // namespace beamline::kernels
