// SPDX-License-Identifier: Apache-2.0
//
// The linear assignment problem: every row gets a column of its own at the least total cost (Kuhn 1955, Munkres 1957,
// in the shortest-augmenting-path form of Jonker and Volgenant 1987). Pure function; time rows^2 * columns at worst.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace beamline::sid {

// costs [rows, columns], row-major, finite. REQUIRES: rows <= columns. Returns the column of each row.
std::vector<int64_t> SolveAssignment(absl::Span<const float> costs, int64_t rows, int64_t columns);

}  // namespace beamline::sid
