// SPDX-License-Identifier: Apache-2.0
//
// The product of a few rows with a weight: the first decode step, of which a request has one row. All there is to do is
// to read the weight once, so every warp streams sixteen of its rows through shared memory on its own, without a
// barrier of a block. Tensor cores add k in ascending groups of sixteen into one fp32 sum: the order of cuBLASLt's
// kernels that do not split k, whose bits these may therefore be (src/backend/cuda/algorithms.h looks).
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline constexpr int32_t kMaxSkinnyRows = 16;

// out[row][i] = scale x[row] . weight[i] (+ out[row][i]) (+ bias[i]), then ReLU, rounded once. The same bits for every
// number of rows and every place. Rows of x and weight begin at 16 bytes.
struct SkinnyProductArgs {
  DataType type = DataType::kBFloat16;      // of x and weight: bf16 or fp16
  DataType out_type = DataType::kBFloat16;  // of out and bias: `type` or fp32
  int32_t rows = 0;                         // 1..kMaxSkinnyRows
  int32_t n = 0;
  int32_t k = 0;  // multiple of 8
  const void* x = nullptr;
  const void* weight = nullptr;                       // [n][k]
  int64_t x_step = 0, weight_step = 0, out_step = 0;  // elements between rows; the first two multiples of 8
  float scale = 1;
  bool add = false;  // to what out holds
  bool relu = false;
  const void* bias = nullptr;  // [n] or null
  void* out = nullptr;         // [rows][n]
};

LaunchError SkinnyProductCuda(const SkinnyProductArgs& args, CudaStream stream);

}  // namespace beamline::kernels
