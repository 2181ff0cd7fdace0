// SPDX-License-Identifier: Apache-2.0
//
// Packing, as far as all versions of the GEMM share it: which rows of a weight make a panel, and where it goes.
#pragma once

#include <algorithm>
#include <cstdint>

#include "beamline/kernels/packed_gemm.h"

namespace beamline::kernels {
namespace {

// A panel's columns: rows of the weight.
struct PanelSource {
  const float* rows;
  int64_t k;
  int64_t columns;  // that exist, of kPanel

  float At(int64_t column, int64_t i) const { return column < columns && i < k ? rows[column * k + i] : 0.0f; }
};

inline int64_t PackedPanels(int64_t n, bool gated) { return PanelCount(n) * (gated ? 2 : 1); }

// `Format::PanelBytes(k)` and `Format::PackPanel(source, to)` say what a panel looks like.
template <typename Format>
int64_t PackedBytes(const WeightShape& shape) {
  return PackedPanels(shape.n, shape.gated) * Format::PanelBytes(shape.k);
}

template <typename Format>
void PackWeight(const float* weight, const WeightShape& shape, void* packed) {
  const int64_t n = shape.n, k = shape.k;
  char* to = static_cast<char*>(packed);
  for (int64_t panel = 0; panel < PanelCount(n); ++panel) {
    const int64_t first = panel * kPanel, columns = std::min(kPanel, n - first);
    for (int64_t half = 0; half < (shape.gated ? 2 : 1); ++half, to += Format::PanelBytes(k)) {
      Format::PackPanel(PanelSource{weight + (half * n + first) * k, k, columns}, to);
    }
  }
}

}  // namespace
}  // namespace beamline::kernels
