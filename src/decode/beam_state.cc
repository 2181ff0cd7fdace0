// SPDX-License-Identifier: Apache-2.0
#include "decode/beam_state.h"

#include <algorithm>

namespace beamline::decode {

void BeamState::Reserve(absl::Span<const int> capacities) {
  if (levels_.size() < capacities.size()) levels_.resize(capacities.size());
  for (size_t i = 0; i < capacities.size(); ++i) {
    levels_[i].node.reserve(capacities[i]);
    levels_[i].score.reserve(capacities[i]);
    levels_[i].parent.reserve(capacities[i]);
    levels_[i].code.reserve(capacities[i]);
    levels_[i].log_prob.reserve(capacities[i]);
  }
}

BeamState::OpenedLevel BeamState::OpenLevel(int capacity) {
  if (open_ == static_cast<int>(levels_.size())) levels_.emplace_back();
  Level& level = levels_[open_++];
  level.node.resize(capacity);
  level.score.resize(capacity);
  level.parent.resize(capacity);
  level.code.resize(capacity);
  level.log_prob.resize(capacity);
  level.slots = {level.node.data(), level.score.data(),    level.parent.data(),
                 level.code.data(), level.log_prob.data(), 0};
  return {open_ == 1 ? nullptr : &levels_[open_ - 2].slots, &level.slots};
}

void BeamState::TakeLevel(const kernels::BeamSlots& from) {
  kernels::BeamSlots& to = *OpenLevel(from.count).out;
  std::copy_n(from.node, from.count, to.node);
  std::copy_n(from.score, from.count, to.score);
  std::copy_n(from.parent, from.count, to.parent);
  std::copy_n(from.code, from.count, to.code);
  std::copy_n(from.log_prob, from.count, to.log_prob);
  to.count = from.count;
}

void BeamState::KeepRows(absl::Span<const int> rows) {
  Level& level = levels_[open_ - 1];
  for (size_t to = 0; to < rows.size(); ++to) {
    const int from = rows[to];
    level.node[to] = level.node[from];
    level.score[to] = level.score[from];
    level.parent[to] = level.parent[from];
    level.code[to] = level.code[from];
    level.log_prob[to] = level.log_prob[from];
  }
  level.slots.count = static_cast<int32_t>(rows.size());
}

Sid BeamState::Prefix(int row) const {
  Code codes[kMaxLevels] = {};
  for (int level = levels() - 1; level >= 0; --level) {
    codes[level] = levels_[level].code[row];
    row = levels_[level].parent[row];
  }
  return Sid(absl::MakeConstSpan(codes, levels()));
}

std::vector<Hypothesis> BeamState::Hypotheses(int sid_levels) const {
  std::vector<Hypothesis> hypotheses(open_ == 0 ? 0 : count());
  for (int leaf_row = 0; leaf_row < static_cast<int>(hypotheses.size()); ++leaf_row) {
    Hypothesis& hypothesis = hypotheses[leaf_row];
    hypothesis.leaf = levels_[open_ - 1].node[leaf_row];
    hypothesis.score = levels_[open_ - 1].score[leaf_row];
    hypothesis.log_probs.resize(levels());
    Code codes[kMaxLevels + 1] = {};
    int row = leaf_row;
    for (int level = levels() - 1; level >= 0; --level) {
      codes[level] = levels_[level].code[row];
      hypothesis.log_probs[level] = levels_[level].log_prob[row];
      row = levels_[level].parent[row];
    }
    hypothesis.sid = Sid(absl::MakeConstSpan(codes, sid_levels));
  }
  return hypotheses;
}

std::vector<std::vector<TracedBeam>> BeamState::Trace() const {
  std::vector<std::vector<TracedBeam>> traced(open_);
  for (int level = 0; level < open_; ++level) {
    const kernels::BeamSlots& slots = levels_[level].slots;
    for (int row = 0; row < slots.count; ++row) {
      // The first level's rows all come from the root, whatever the selection wrote there.
      traced[level].push_back(
          {slots.code[row], level == 0 ? 0 : slots.parent[row], slots.log_prob[row], slots.score[row]});
    }
  }
  return traced;
}

}  // namespace beamline::decode
