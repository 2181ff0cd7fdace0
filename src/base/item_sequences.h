// SPDX-License-Identifier: Apache-2.0
//
// Per-user sequences of item indices in time order, in one flat array (CSR): what the collaborative embedding, the
// counting baselines and the trainer read. Indices are dense, 0..num_items-1; who makes the sequences keeps the map
// from index to ItemId. A plain value; 8 bytes per user and 4 per event.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace beamline {

struct ItemSequences {
  std::vector<uint64_t> offsets{0};  // [users + 1]
  std::vector<uint32_t> items;       // [offsets.back()]
  uint32_t num_items = 0;

  int64_t users() const { return static_cast<int64_t>(offsets.size()) - 1; }
  absl::Span<const uint32_t> user(int64_t index) const {
    return absl::MakeConstSpan(items).subspan(offsets[index], offsets[index + 1] - offsets[index]);
  }
  void Append(absl::Span<const uint32_t> sequence) {
    items.insert(items.end(), sequence.begin(), sequence.end());
    offsets.push_back(items.size());
  }
};

}  // namespace beamline
