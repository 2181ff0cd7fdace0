// SPDX-License-Identifier: Apache-2.0
//
// One decode step's constrained beam selection: log-sum-exp of every row, legality, and the best `width` children over
// all parents of a request together (no cap per parent). Exact, deterministic: score descending (-0 equals +0), then
// node id ascending, which is code order. Design: "Beam search contract".
//
// Limits: width <= 65536 per request, vocabulary <= 65536, levels <= kMaxTrieLevels.
#pragma once

#include <cstdint>

#include "beamline/kernels/trie_view.h"

namespace beamline::kernels {

enum class ScoreRule : int { kFull = 0, kLegal = 1 };

enum class SelectError : int {
  kOk = 0,
  kNonFiniteLogits = 1,  // a NaN, a +inf, or a row without a finite log-sum-exp
};

// The beams of one request before or after a step; arrays of `capacity` entries, the first `count` are active.
struct BeamSlots {
  uint32_t* node = nullptr;    // [capacity] node id in the request's trie at the last selected level
  float* score = nullptr;      // [capacity] cumulative log-probability
  int32_t* parent = nullptr;   // [capacity] row of the parent beam in the previous step
  uint16_t* code = nullptr;    // [capacity] code selected in this step
  float* log_prob = nullptr;   // [capacity] log-probability of that code
  int32_t count = 0;
};

struct BeamSelectArgs {
  const float* logits = nullptr;  // [rows, ld]; row r belongs to active parent r (step 1: one row, the root)
  int64_t ld = 0;                 // elements between rows, >= vocab
  int32_t vocab = 0;              // size of this level
  int32_t level = 0;              // 0-based level being selected
  int32_t width = 0;              // beams to keep; `out` has at least this capacity
  ScoreRule rule = ScoreRule::kFull;
  const ConstraintView* constraint = nullptr;
  const BeamSlots* in = nullptr;  // null at level 0: one parent, the root, with score 0
  BeamSlots* out = nullptr;
};

// Selects for one request; sets out->count to min(width, eligible finite children). On error out->count is 0.
SelectError BeamSelectCpu(const BeamSelectArgs& args);

}  // namespace beamline::kernels
