// SPDX-License-Identifier: Apache-2.0
//
// A second opinion on partial paths (PROMISE, 2601.04674): a step expands to more prefixes than the beam keeps, the
// scorer values them, and the most valuable stay. Cumulative log-probabilities are untouched, so scores of the answer
// keep their meaning. Off unless a search is given a scorer. Implementations must be thread-safe and must value a path
// by its own request alone, or answers would depend on what shares a batch.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "beamline/types.h"

namespace beamline::decode {

// The candidates of one request after one step, in the search's order.
struct PathCandidates {
  int request = 0;  // index in the batch
  int level = 0;    // 0-based, the level just selected
  absl::Span<const Sid> prefixes;
  absl::Span<const float> scores;  // cumulative log-probabilities
};

class PathScorer {
 public:
  virtual ~PathScorer() = default;
  // Prefixes to expand at `level` where the beam keeps `width`; smaller values mean `width`.
  virtual int ExpandedWidth(int level, int width) const = 0;
  // One value per candidate, larger is better; equal values keep the search's order.
  virtual std::vector<float> Score(const PathCandidates& candidates) const = 0;
};

}  // namespace beamline::decode
