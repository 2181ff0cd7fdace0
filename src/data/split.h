// SPDX-License-Identifier: Apache-2.0
//
// The leave-one-out split: a user's last item is the test target, the last but one the validation target, everything
// before is training data. Histories reach up to the target, so a test history holds the validation item. Users with
// fewer than three items take part in training only. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "base/item_sequences.h"

namespace beamline::data {

enum class HeldOut { kValidation, kTest };

struct EvaluationCase {
  uint32_t user = 0;
  uint32_t target = 0;
  absl::Span<const uint32_t> history;  // oldest first; a view into the sequences
};

// One case per user with at least three items, in user order. `sequences` must outlive the result.
std::vector<EvaluationCase> EvaluationCases(const ItemSequences& sequences, HeldOut held_out);

// Every user's items but the last `held_out` ones: 2 leaves out validation and test, 1 the test item alone. Users stay
// at their index; those with fewer than three items keep everything, since nothing of them is ever a target.
ItemSequences TrainingPart(const ItemSequences& sequences, int held_out = 2);

}  // namespace beamline::data
