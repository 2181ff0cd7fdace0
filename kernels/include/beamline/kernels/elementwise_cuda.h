// SPDX-License-Identifier: Apache-2.0
//
// Small things between the sublayers, on the device: what has no reduction. Computed in fp32 and rounded once. Arrays
// are 16-byte aligned, rows dense. Widths are multiples of 8 up to kMaxRowWidth, rows 1..2^31, and no array has more
// than kMaxElements.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline constexpr int64_t kMaxElements = (int64_t{1} << 39) - 256;

// out = x + y
struct AddArgs {
  DataType type = DataType::kFloat32;
  int64_t count = 0;  // elements, a multiple of 8
  const void* x = nullptr;
  const void* y = nullptr;
  void* out = nullptr;  // may be x or y
};

LaunchError AddCuda(const AddArgs& args, CudaStream stream);

// out = trunk + sigmoid(gate + bias) * code
struct GatedSumArgs {
  DataType type = DataType::kFloat32;  // of all but gate
  int64_t rows = 0;
  int32_t width = 0;
  const void* trunk = nullptr;  // [rows][width]
  const float* gate = nullptr;  // [rows][width]
  const void* bias = nullptr;   // [width] or null
  const void* code = nullptr;   // [rows][width]
  void* out = nullptr;          // [rows][width]; may be trunk or code
};

LaunchError GatedSumCuda(const GatedSumArgs& args, CudaStream stream);

// out[r] = x[first + r / repeat % period * step]
struct RepeatRowsArgs {
  DataType type = DataType::kFloat32;
  int64_t rows = 0;
  int32_t width = 0;
  int32_t repeat = 1;       // at least 1
  int32_t period = 1;       // at least 1
  int32_t step = 1;         // at least 0
  int32_t first = 0;        // at least 0
  const void* x = nullptr;  // at least first + (period - 1) * step + 1 rows
  void* out = nullptr;      // [rows][width]
};

LaunchError RepeatRowsCuda(const RepeatRowsArgs& args, CudaStream stream);

}  // namespace beamline::kernels
