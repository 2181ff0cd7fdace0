// SPDX-License-Identifier: Apache-2.0
//
// The last layer of a ranker over the candidates of a search, on the host; RankCandidatesCuda (ranker_cuda.h) is the
// same on a device. One tower over what the search knows of a candidate, one head per behaviour, and their weighted
// sum: OneRec's P-score (2506.13695).
//
//   hidden = silu(state[parent] + code[last code])         fp32
//   logit[h] = head[h] . hidden + bias[h]                  fp32, in an order that depends on the width alone
//   value = score_weight * score + sum over h of weight[h] * sigmoid(logit[h])
#pragma once

#include <cstdint>

namespace beamline::kernels {

inline constexpr int32_t kMaxRankerHeads = 8;
inline constexpr int32_t kMaxRankerWidth = 4096;

// Of one request. Rows are dense.
struct RankCandidatesArgs {
  int32_t count = 0;                  // candidates
  int32_t width = 0;                  // a multiple of 8, at most kMaxRankerWidth
  int32_t heads = 0;                  // 1..kMaxRankerHeads
  const float* states = nullptr;      // [parents][width]
  const float* code_table = nullptr;  // [codes][width]
  const float* head = nullptr;        // [heads][width]
  const float* bias = nullptr;        // [heads]
  const float* weight = nullptr;      // [heads]
  const int32_t* parents = nullptr;   // [count] row of `states`
  const uint16_t* codes = nullptr;    // [count] row of `code_table`
  float score_weight = 0;
  const float* scores = nullptr;  // [count], finite
  float* values = nullptr;        // [count]
};

// REQUIRES: sizes within their limits, parents and codes inside their tables. Allocates nothing; thread-safe.
void RankCandidatesCpu(const RankCandidatesArgs& args);

}  // namespace beamline::kernels
