// SPDX-License-Identifier: Apache-2.0
//
// Where one head of one request's attention lies, for every kernel that computes it.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "beamline/kernels/attention_cuda.h"

namespace beamline::kernels {

inline constexpr float kLog2E = 1.4426950408889634f;

// One request's rows, one head of them.
template <class T>
struct Head {
  const T *query, *key, *value;
  T* out;
  int32_t queries, keys;
  const int32_t* key_order;    // of the request's first key
  const int32_t* query_limit;  // of row 0
  int64_t query_begin;
  int32_t limit_repeat;
  const float* bias;  // of distance 0

  __device__ int32_t Limit(int32_t row) const { return query_limit[(query_begin + row) / limit_repeat]; }
};

template <class T>
__device__ Head<T> HeadOf(const AttentionBatch& batch, int request, int head) {
  const int64_t query_begin =
      batch.query_begin == nullptr ? int64_t{request} * batch.max_queries : batch.query_begin[request];
  const int64_t key_begin = batch.key_begin == nullptr ? int64_t{request} * batch.max_keys : batch.key_begin[request];
  const int64_t query_at = int64_t{head} * batch.head_dim;
  const int64_t key_at =
      key_begin * batch.key_value_step + int64_t{head / (batch.heads / batch.key_value_heads)} * batch.head_dim;
  Head<T> at;
  at.query = static_cast<const T*>(batch.query) + query_begin * batch.query_step + query_at;
  at.out = static_cast<T*>(batch.out) + query_begin * batch.out_step + query_at;
  at.key = static_cast<const T*>(batch.key) + key_at;
  at.value = static_cast<const T*>(batch.value) + key_at;
  at.queries = batch.query_count == nullptr ? batch.max_queries : batch.query_count[request];
  at.keys = batch.key_count == nullptr ? batch.max_keys : batch.key_count[request];
  at.key_order = batch.key_order == nullptr ? nullptr : batch.key_order + key_begin;
  at.query_limit = batch.query_limit;
  at.query_begin = query_begin;
  at.limit_repeat = batch.limit_repeat;
  at.bias = batch.relative_bias == nullptr ? nullptr
                                           : batch.relative_bias + int64_t{head} * (2 * batch.reach + 1) + batch.reach;
  return at;
}

template <class T>
__device__ float Bias(const Head<T>& head, int32_t reach, int32_t query, int32_t key) {
  const int32_t distance = key - query;
  return head.bias[distance < -reach ? -reach : distance > reach ? reach : distance];
}

}  // namespace beamline::kernels
