// SPDX-License-Identifier: Apache-2.0
//
// Lists of items, one after another in one array. What the counting baselines are made of.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace beamline::data {

// For each row a list of (item, value).
struct SparseRows {
  struct Entry {
    uint32_t item = 0;
    float value = 0;
  };
  std::vector<uint64_t> offsets{0};  // [rows + 1]
  std::vector<Entry> entries;

  absl::Span<const Entry> row(uint32_t index) const {
    return absl::MakeConstSpan(entries).subspan(offsets[index], offsets[index + 1] - offsets[index]);
  }
};

// Turns a list of lists into rows of equal items together: rows[item] = what `visit` adds for it. `visit(add)` is
// called twice, once to count and once to fill, so that memory is exact.
template <typename Visit>
std::pair<std::vector<uint64_t>, std::vector<uint32_t>> GroupByItem(uint32_t num_items, const Visit& visit) {
  std::vector<uint64_t> offsets(num_items + 1, 0);
  visit([&](uint32_t item, uint32_t) { ++offsets[item + 1]; });
  for (uint32_t item = 0; item < num_items; ++item) offsets[item + 1] += offsets[item];
  std::vector<uint32_t> values(offsets.back());
  std::vector<uint64_t> next(offsets.begin(), offsets.end() - 1);
  visit([&](uint32_t item, uint32_t value) { values[next[item]++] = value; });
  return {std::move(offsets), std::move(values)};
}

}  // namespace beamline::data
