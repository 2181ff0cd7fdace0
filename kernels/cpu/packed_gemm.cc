// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/packed_gemm.h"

#include <algorithm>

namespace beamline::kernels {
namespace {

// Rows [first, min(first + kPanel, n)) of weight to one panel.
void PackPanel(const float* weight, int64_t first, int64_t n, int64_t k, float* panel) {
  const int64_t columns = std::min(kPanel, n - first);
  for (int64_t i = 0; i < k; ++i) {
    for (int64_t j = 0; j < kPanel; ++j) panel[i * kPanel + j] = j < columns ? weight[(first + j) * k + i] : 0.0f;
  }
}

}  // namespace

void PackWeight(const float* weight, int64_t n, int64_t k, float* packed) {
  for (int64_t panel = 0; panel < PanelCount(n); ++panel) {
    PackPanel(weight, panel * kPanel, n, k, packed + panel * kPanel * k);
  }
}

void PackGatedWeight(const float* weight, int64_t width, int64_t k, float* packed) {
  for (int64_t panel = 0; panel < PanelCount(width); ++panel) {
    float* pair = packed + 2 * panel * kPanel * k;
    PackPanel(weight, panel * kPanel, width, k, pair);
    PackPanel(weight + width * k, panel * kPanel, width, k, pair + kPanel * k);
  }
}

}  // namespace beamline::kernels
