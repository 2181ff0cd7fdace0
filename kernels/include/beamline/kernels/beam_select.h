// SPDX-License-Identifier: Apache-2.0
//
// One decode step's constrained beam selection for one request: log-sum-exp of every row, eligibility, and the best
// `width` children over all parents together (no cap per parent). Exact and deterministic: score descending (-0 equals
// +0), then node id ascending, which is code order. Design: "Beam search contract".
//
// Numbers. log p = (x - max) - log(sum exp(x - max)) and score = parent's score + log p, each operation in fp32. The
// sum adds fp32 exponentials pairwise inside fixed blocks and the blocks in double, so it depends on the row's own
// length alone, never on other rows, on threads or on the vector width of the machine. `kFull` sums over the row,
// `kLegal` over the children the snapshot has under the parent, before the request's own rules. A logit of -inf is
// probability zero and never selected; neither is a child whose score leaves the range of fp32. A NaN or +inf anywhere
// in the row of an active parent, eligible or not, or a sum over nothing but -inf, fails the request.
//
// Limits: width <= 65536, vocabulary <= 2^24, levels <= kMaxTrieLevels. Code c is column `first_code` + c of a row,
// below `vocab`: the caller has paired the model with the catalogue; a violation is an error, not a read past the row.
// Thread-safe: no state is shared.
#pragma once

#include <cstdint>

#include "beamline/kernels/trie_view.h"

namespace beamline::kernels {

inline constexpr int32_t kMaxBeamWidth = 65536;

enum class ScoreRule : int { kFull = 0, kLegal = 1 };

enum class SelectError : int {
  kOk = 0,
  kNonFiniteLogits = 1,  // a NaN, a +inf, or a row without a finite log-sum-exp
  kInvalidArgument = 2,  // a size out of its limits, a null array, a code or a node the trie does not allow
};

// The beams of one request before or after a step; arrays of `capacity` entries, the first `count` are active.
struct BeamSlots {
  uint32_t* node = nullptr;   // [capacity] node id in the request's trie at the last selected level
  float* score = nullptr;     // [capacity] cumulative log-probability
  int32_t* parent = nullptr;  // [capacity] row of the parent beam in the previous step
  uint16_t* code = nullptr;   // [capacity] code selected in this step
  float* log_prob = nullptr;  // [capacity] log-probability of that code
  int32_t count = 0;
};

struct BeamSelectArgs {
  const float* logits = nullptr;  // [rows, ld]; row r belongs to active parent r (step 1: one row, the root)
  int64_t ld = 0;                 // elements between rows, >= vocab
  int32_t vocab = 0;              // columns of a row: this level's codes and whatever `kFull` sums over besides
  int32_t first_code = 0;         // column of code 0
  int32_t level = 0;              // 0-based level being selected
  int32_t width = 0;              // beams to keep; `out` has at least this capacity
  ScoreRule rule = ScoreRule::kFull;
  const ConstraintView* constraint = nullptr;
  const BeamSlots* in = nullptr;  // null at level 0: one parent, the root, with score 0
  BeamSlots* out = nullptr;       // shares no array with `in`
};

// Selects for one request, best first; sets out->count to min(width, eligible children of finite score). Entries beyond
// the count are not written. On error out->count is 0. Reads only `node`, `score` and `count` of `in`.
SelectError BeamSelectCpu(const BeamSelectArgs& args);

}  // namespace beamline::kernels
