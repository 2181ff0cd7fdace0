// SPDX-License-Identifier: Apache-2.0
//
// The beams of one request across the levels of a search: per level the trie node, cumulative score, parent row, code
// and its log-probability. All levels are kept, so a finished leaf is traced back through its parents. Rows of a level
// stand in the search's order: score descending, then code order. Belongs to one search; not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "beamline/kernels/beam_select.h"
#include "beamline/request.h"
#include "beamline/types.h"
#include "decode/hypothesis.h"

namespace beamline::decode {

class BeamState {
 public:
  // Makes room for levels of these capacities, so that opening them allocates nothing.
  void Reserve(absl::Span<const int> capacities);

  // The level selected last; null before the first. Valid until OpenLevel.
  const kernels::BeamSlots* last() const { return open_ == 0 ? nullptr : &levels_[open_ - 1].slots; }
  // Beams kept at the last level; 1, the root, before the first.
  int count() const { return open_ == 0 ? 1 : levels_[open_ - 1].slots.count; }
  int levels() const { return open_; }

  // Adds a level with room for `capacity` beams, to be filled by a selection that reads `in`: the level before it, null
  // at the first. Both pointers are valid until the next OpenLevel.
  struct OpenedLevel {
    const kernels::BeamSlots* in = nullptr;
    kernels::BeamSlots* out = nullptr;
  };
  OpenedLevel OpenLevel(int capacity);

  // Adds a level with a copy of these beams.
  void TakeLevel(const kernels::BeamSlots& from);

  // Keeps these rows of the last level and drops the others. REQUIRES: ascending rows below count().
  void KeepRows(absl::Span<const int> rows);
  void Clear() { open_ = 0; }

  // Codes from the root to a row of the last level. REQUIRES: levels() <= kMaxLevels.
  Sid Prefix(int row) const;
  // The rows of the last level as answers, in order: SIDs of the first `sid_levels` codes, log-probabilities of all
  // levels. One more level than that is the end token's; its nodes are leaves.
  std::vector<Hypothesis> Hypotheses(int sid_levels) const;
  // A copy of every level, for whoever wants to see how the answers were found.
  std::vector<std::vector<TracedBeam>> Trace() const;

 private:
  struct Level {
    std::vector<uint32_t> node;
    std::vector<float> score;
    std::vector<int32_t> parent;
    std::vector<uint16_t> code;
    std::vector<float> log_prob;
    kernels::BeamSlots slots;  // points into the vectors above, whose storage moves with the level
  };
  std::vector<Level> levels_;  // the first open_ of them hold beams
  int open_ = 0;
};

}  // namespace beamline::decode
