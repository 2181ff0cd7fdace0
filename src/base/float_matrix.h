// SPDX-License-Identifier: Apache-2.0
//
// A dense row-major fp32 matrix: item vectors, centroids. A plain value; copying copies the data.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace beamline {

struct FloatMatrix {
  int64_t rows = 0;
  int64_t cols = 0;
  std::vector<float> values;  // [rows, cols]

  FloatMatrix() = default;
  FloatMatrix(int64_t rows, int64_t cols) : rows(rows), cols(cols), values(static_cast<size_t>(rows * cols)) {}

  float* row(int64_t index) { return values.data() + index * cols; }
  const float* row(int64_t index) const { return values.data() + index * cols; }
  absl::Span<const float> row_span(int64_t index) const { return {row(index), static_cast<size_t>(cols)}; }
};

}  // namespace beamline
