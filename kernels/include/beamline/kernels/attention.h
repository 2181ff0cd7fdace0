// SPDX-License-Identifier: Apache-2.0
//
// Attention of the rows of one sequence (one request), all heads, in fp32. Sixteen query rows share a pass over the
// keys; a query's result depends on its own row, its keys and their order alone, bit for bit: hidden keys add exact
// zeros, so padding changes nothing as long as it is finite.
//
// Heads lie side by side: head h of a query is [h * head_dim, (h + 1) * head_dim) of its row; a key-value row holds all
// keys, then all values. A query that sees no key gets 0.
#pragma once

#include <cstdint>

namespace beamline::kernels {

struct AttentionShape {
  int heads = 1;
  int64_t head_dim = 0;
  float scale = 1;  // of the scores
};

// Rows [first_row, first_row + rows) of a sequence's queries over a context. Query r sees key j iff
// order[j] <= limit[r / repeat].
struct ContextAttentionArgs {
  AttentionShape shape;
  const float* query = nullptr;  // [rows, query_step], from first_row on
  int64_t query_step = 0;
  int64_t first_row = 0;
  int64_t rows = 0;
  const float* key_value = nullptr;  // [tokens, key_value_step], keys first, values heads * head_dim behind
  int64_t key_value_step = 0;
  int64_t tokens = 0;              // > 0; keys behind the last visible one may be left out
  const int32_t* order = nullptr;  // [tokens]
  const int32_t* limit = nullptr;  // of the sequence's row 0 and on
  int64_t repeat = 1;
  // Added to the scaled score of query r and key j: bias[h * bias_step + r - j], or null. Readable for distances from
  // 1 - tokens to first_row + rows + 15.
  const float* bias = nullptr;
  int64_t bias_step = 0;
  float* scratch = nullptr;  // [ContextAttentionScratch(tokens, head_dim)], a thread's own
  float* out = nullptr;      // [rows, heads * head_dim], from first_row on
};

inline int64_t ContextAttentionScratch(int64_t tokens, int64_t head_dim) {
  const int64_t padded_dim = (head_dim + 15) / 16 * 16;
  return 16 * (tokens + head_dim + 3) + (tokens + 16) * padded_dim;
}

inline constexpr int kMaxLineageSteps = 15;

// Each row over the path that led to it and itself: key-value rows found by lineage.
struct LineageAttentionArgs {
  AttentionShape shape;
  const float* query = nullptr;  // [rows, heads * head_dim]
  const float* own = nullptr;    // [rows, 2 * heads * head_dim] keys and values of the rows themselves
  int64_t rows = 0;
  int steps = 0;                       // taken before, at most kMaxLineageSteps
  const float* const* past = nullptr;  // [steps] key-value rows [rows of that step, 2 * heads * head_dim]
  const int32_t* lineage = nullptr;    // [rows, steps] row of each step
  const float* bias = nullptr;         // [heads, steps + 1] added to the scaled scores, or null
  float* out = nullptr;                // [rows, heads * head_dim]
};

}  // namespace beamline::kernels
