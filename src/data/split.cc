// SPDX-License-Identifier: Apache-2.0
#include "data/split.h"

namespace beamline::data {
namespace {

constexpr size_t kLeastItems = 3;  // one to learn from, one to validate, one to test

}  // namespace

std::vector<EvaluationCase> EvaluationCases(const ItemSequences& sequences, HeldOut held_out) {
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

ItemSequences TrainingPart(const ItemSequences& sequences, int held_out) {
  ItemSequences training;
  training.num_items = sequences.num_items;
  for (int64_t user = 0; user < sequences.users(); ++user) {
    const absl::Span<const uint32_t> items = sequences.user(user);
    training.Append(items.size() < kLeastItems ? items : items.first(items.size() - held_out));
  }
  return training;
}

}  // namespace beamline::data
