// SPDX-License-Identifier: Apache-2.0
//
// Attention of query rows over the keys of their own request, on the device. Two uses:
//   encoder self-attention   over packed sequences of any lengths: queries and keys are the same rows
//   context cross-attention  the beams of a request are the M dimension of one tile loop, and its context is read once
//                            per tile of 64 beams, however many requests of whatever lengths share the batch
//
// Request b's queries are the rows query_begin[b] .. + query_count[b], its keys and values the rows key_begin[b] .. +
// key_count[b]; without begins, requests stand one behind the other, max_queries and max_keys rows each. Head h of a
// row is [h * head_dim, (h + 1) * head_dim); query head h reads key-value head h / (heads / key_value_heads). Query r
// sees key j iff key_order[j] <= query_limit[r / limit_repeat] (both indexed by row; null: every key of the request). A
// query that sees no key gets 0; rows beyond a count are neither read nor written. Hidden keys' rows are read, and
// their values weigh 0: they must be finite.
//
// Numbers. bf16 and fp16 with head_dim 32, 64, 96 or 128 on tensor cores: scores and sums in fp32, probabilities
// rounded to the type before they weigh values (FlashAttention-2, arXiv 2307.08691; by wgmma FlashAttention-3,
// arXiv 2407.08608). A block of 96 takes 123,184 bytes of shared memory, one of 128 160,048, and 100,352 and 133,120 by
// wgmma: where a device has less, and for everything else, one warp per row and head, in fp32. A row's result depends
// on its own request's keys in their order, never on what shares the batch.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline constexpr int32_t kMaxReach = 1 << 20;          // of relative positions
inline constexpr int32_t kMaxAttentionRows = 1 << 30;  // queries, or keys, of a request

struct AttentionBatch {
  DataType type = DataType::kFloat32;  // of queries, keys, values and the result
  int32_t heads = 1;                   // 1..kMaxHeads
  int32_t key_value_heads = 1;         // divides heads
  int32_t head_dim = 0;                // multiple of 8, at most kMaxHeadDim
  float scale = 1;                     // of the scores, above 0; 1 / sqrt(head_dim), T5: 1
  // Steps are elements between rows, multiples of 8; arrays are 16-byte aligned. value == key is read once.
  const void* query = nullptr;  // [query rows][query_step]
  int64_t query_step = 0;
  const void* key = nullptr;  // [key rows][key_value_step]
  const void* value = nullptr;
  int64_t key_value_step = 0;
  void* out = nullptr;  // [query rows][out_step]; may be `query`
  int64_t out_step = 0;
  int32_t requests = 0;                  // 1..65535
  int32_t max_queries = 0;               // 1..kMaxAttentionRows; no request has more; shapes the grid
  int32_t max_keys = 0;                  // 1..kMaxAttentionRows: rows of a request where key_begin is null
  const int32_t* query_begin = nullptr;  // [requests] each, or null
  const int32_t* query_count = nullptr;  // null only with its begin: max_queries
  const int32_t* key_begin = nullptr;
  const int32_t* key_count = nullptr;    // null only with its begin: max_keys
  const int32_t* key_order = nullptr;    // [key rows], with query_limit or null
  const int32_t* query_limit = nullptr;  // [query rows / limit_repeat]
  int32_t limit_repeat = 1;              // at least 1
  // Relative positions (T5): relative_bias[h * (2 * reach + 1) + reach + clamp(j - i, -reach, reach)] is added to the
  // scaled score of the request's i-th query and j-th key. Null: none.
  const float* relative_bias = nullptr;
  int32_t reach = 0;  // at most kMaxReach
  // By wgmma, where there are such kernels (PrepareWarpgroups, warpgroups_cuda.h) and the head size has one. Other
  // bits, so the same for all batches.
  bool warpgroups = false;
};

LaunchError AttentionCuda(const AttentionBatch& batch, CudaStream stream);

// Asks once for the shared memory that the portable tensor-core kernels need; outside of any capture, before the first
// launch.
LaunchError AttentionPrepare();

}  // namespace beamline::kernels
