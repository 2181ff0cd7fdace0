// SPDX-License-Identifier: Apache-2.0
//
// Products of rows with a weight, beside cuBLASLt's. All of them add k in ascending groups of sixteen into one fp32 sum
// on tensor cores: meant to be the order of cuBLASLt's kernels that do not split k, whose bits these may therefore be
// (src/backend/cuda/algorithms.h looks). Of a kernel the bits are the same for every number of rows and every place.
//
// SkinnyProductCuda is for a few rows, as the first decode step has (one of a request): all there is to do is to read
// the weight once, so every warp streams sixteen of its rows through shared memory on its own, without a barrier of a
// block. DenseProductCuda is for many, by wgmma (sm_90a).
//
// Both can apply a feed-forward layer's gate (SwiGLU, T5's gated GELU; arXiv 2002.05202) before anything is written:
// the gates and values of a row, twice the result, never reach memory.
#pragma once

#include <cstdint>
#include <optional>

#include "beamline/kernels/activation_cuda.h"
#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline constexpr int32_t kMaxSkinnyRows = 16;

// The gates that these kernels have.
inline constexpr ActivationKind kProductGates[] = {ActivationKind::kSilu, ActivationKind::kGeluTanh};
constexpr bool IsProductGate(ActivationKind kind) {
  for (const ActivationKind gate : kProductGates) {
    if (gate == kind) return true;
  }
  return false;
}

// out[row][i] = alpha x[row] . weight[i] (+ out[row][i]) (+ bias[i]), then ReLU, in fp32; then rounded to `out_type`.
// With a gate the weight's first n / 2 rows are gates, the others their values, and out[row][i] = f(gate) * value of
// both as they are rounded to `type`: the bits of a product that is written, and of ActivationCuda behind it.
struct ProductArgs {
  DataType type = DataType::kBFloat16;      // of x and weight: bf16 or fp16
  DataType out_type = DataType::kBFloat16;  // of out and bias: `type` or fp32
  int32_t rows = 0;                         // at least 1; skinny: at most kMaxSkinnyRows, dense: at most 65535 * 64
  int32_t n = 0;                            // 1..2^30; with a gate a multiple of 16
  int32_t k = 0;                            // multiple of 8, at most 2^30
  const void* x = nullptr;                  // rows of x and weight begin at 16 bytes
  const void* weight = nullptr;             // [n][k]
  int64_t x_step = 0, weight_step = 0, out_step = 0;  // elements between rows; the first two multiples of 8
  float alpha = 1;
  bool add = false;  // to what out holds
  bool relu = false;
  const void* bias = nullptr;          // [n] or null
  std::optional<ActivationKind> gate;  // IsProductGate; out_type is then `type`, without add, relu and bias
  void* out = nullptr;                 // [rows][n], with a gate [rows][n / 2]
};

LaunchError SkinnyProductCuda(const ProductArgs& args, CudaStream stream);

// A block's rows and columns of the weight: the smaller, the more blocks; the larger, the fewer bytes of each product.
enum class DenseTile : int { k64x64 = 0, k64x128 = 1, k128x256 = 2 };

// After PrepareWarpgroups() (warpgroups_cuda.h); kInvalidArgument where that finds no device.
LaunchError DenseProductCuda(const ProductArgs& args, DenseTile tile, CudaStream stream);

}  // namespace beamline::kernels
