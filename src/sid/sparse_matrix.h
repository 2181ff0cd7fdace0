// SPDX-License-Identifier: Apache-2.0
//
// A sparse fp32 matrix in compressed rows. A plain value: 8 bytes per row, 8 per entry; columns ascend within a row.
#pragma once

#include <cstdint>
#include <vector>

namespace beamline::sid {

struct SparseMatrix {
  int64_t cols = 0;
  std::vector<uint64_t> offsets{0};  // [rows + 1]
  std::vector<uint32_t> columns;     // [entries]
  std::vector<float> values;         // [entries]

  int64_t rows() const { return static_cast<int64_t>(offsets.size()) - 1; }
  bool row_empty(int64_t row) const { return offsets[row] == offsets[row + 1]; }
};

}  // namespace beamline::sid
