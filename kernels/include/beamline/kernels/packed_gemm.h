// SPDX-License-Identifier: Apache-2.0
//
// c = activation(a b + bias) with a packed weight b. Every element of a b is one chain of multiply-adds over k from 0
// on, whatever m, n, the columns asked for, threads or tile sizes are: a row's result depends on the row and the weight
// alone, bit for bit.
//
// A weight [n, k] (as torch.nn.Linear has it) is packed into panels of kPanel output columns: [ceil(n / kPanel)][k]
// [kPanel], the last one filled up with zeros. A gated weight [2 * width, k], gate rows first, becomes pairs of panels,
// gate then up; the product then has `width` columns activation(gate) * up.
#pragma once

#include <cstdint>

namespace beamline::kernels {

inline constexpr int64_t kPanel = 16;

enum class RowActivation { kNone, kRelu, kGelu, kGeluTanh, kSilu, kLeakyRelu };

inline int64_t PanelCount(int64_t n) { return (n + kPanel - 1) / kPanel; }
inline int64_t PackedFloats(int64_t n, int64_t k) { return PanelCount(n) * kPanel * k; }

// weight [n, k] -> packed [PackedFloats(n, k)]
void PackWeight(const float* weight, int64_t n, int64_t k, float* packed);
// weight [2 * width, k] -> packed [2 * PackedFloats(width, k)]
void PackGatedWeight(const float* weight, int64_t width, int64_t k, float* packed);

struct GemmArgs {
  const float* a = nullptr;  // [m, k]
  int64_t lda = 0;           // floats between rows
  int64_t m = 0;
  int64_t k = 0;
  const float* b = nullptr;  // packed
  bool gated = false;
  int64_t n = 0;                // columns of c; of a gated weight its width
  const float* bias = nullptr;  // [n] or null; null for a gated weight
  RowActivation activation = RowActivation::kNone;
  float* c = nullptr;  // [m, n]; shares nothing with a
  int64_t ldc = 0;
  // Panels of c's columns to compute; a thread's share.
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
};

}  // namespace beamline::kernels
