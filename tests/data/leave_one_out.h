// SPDX-License-Identifier: Apache-2.0
//
// The leave-one-out split of plain sequences, as published tables have it: a user's last item is the test target, the
// last but one the validation target, everything before is training data. Histories reach up to the target, so a test
// history holds the validation item. Users with fewer than three items take part in training only.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "base/item_sequences.h"
#include "data/split.h"

namespace beamline::data {

inline constexpr size_t kLeastItems = 3;  // one to learn from, one to validate, one to test

// One case per user with at least three items, in user order. `sequences` must outlive the result.
inline std::vector<EvaluationCase> EvaluationCases(const ItemSequences& sequences, HeldOut held_out) {
  const size_t from_end = held_out == HeldOut::kTest ? 1 : 2;
  std::vector<EvaluationCase> cases;
  for (int64_t user = 0; user < sequences.users(); ++user) {
    const absl::Span<const uint32_t> items = sequences.user(user);
    if (items.size() < kLeastItems) continue;
    const size_t target = items.size() - from_end;
    cases.push_back({static_cast<uint32_t>(user), items[target], items.first(target)});
  }
  return cases;
}

// Every user's items but the last `held_out` ones: 2 leaves out validation and test, 1 the test item alone. Users stay
// at their index; those with fewer than three items keep everything, since nothing of them is ever a target.
inline ItemSequences TrainingPart(const ItemSequences& sequences, int held_out = 2) {
  ItemSequences training;
  training.num_items = sequences.num_items;
  for (int64_t user = 0; user < sequences.users(); ++user) {
    const absl::Span<const uint32_t> items = sequences.user(user);
    training.Append(items.size() < kLeastItems ? items : items.first(items.size() - held_out));
  }
  return training;
}

}  // namespace beamline::data
