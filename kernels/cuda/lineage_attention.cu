// SPDX-License-Identifier: Apache-2.0
#include <cfloat>

#include "beamline/kernels/lineage_attention_cuda.h"
#include "cuda/beam_select_core.h"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kLanes = 8;                 // of one row and head
constexpr int kChunk = kLanes * kVector;  // columns they hold together
static_assert(kMaxHeadDim <= 4 * kChunk);

// Steps whose keys and values a thread loads together, of 16 vectors of 16 bytes at most.
template <class T, int kChunks>
constexpr int StepsAtOnce() {
  constexpr int kOfStep = 2 * kChunks * static_cast<int>(sizeof(T)) / 2;
  return 16 / kOfStep < 4 ? 16 / kOfStep : 4;
}

// kChunks * kChunk >= head_dim.
template <class T, int kChunks>
__global__ void __launch_bounds__(kThreads) LineageAttention(const __grid_constant__ LineageAttentionBatch batch) {
  AwaitPredecessors();
  const int64_t group = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kLanes;
  const int32_t row = static_cast<int32_t>(group / batch.heads), head = static_cast<int32_t>(group % batch.heads);
  const int lane = threadIdx.x % kLanes;
  const unsigned mask = 0xffu << (threadIdx.x % 32 / kLanes * kLanes);
  const bool dense = batch.rows_each[0] > 0;
  if (row >= (batch.step == 0 && !dense ? batch.requests : batch.rows)) return;
  const int32_t request = dense             ? row / batch.rows_each[batch.step]
                          : batch.step == 0 ? row
                                            : select::RequestOfRow(batch.row_begin, batch.requests, row);
  if (request >= batch.requests) return;
  const int32_t begin = dense || batch.step == 0 ? 0 : batch.row_begin[request];
  if (!dense && batch.step > 0 && row - begin >= batch.row_count[request]) return;

  const auto column = [&](int chunk) { return chunk * kChunk + lane * kVector; };
  const auto ancestor = [&](int s) {
    const bool one_of_many = s < batch.step && (dense || s > 0);
    return one_of_many ? batch.lineage[int64_t{s} * batch.rows + row] : 0;
  };
  const auto first_of_step = [&](int s) {  // or, of the row's own step and of one with a row a request, the row
    if (s == batch.step) return int64_t{row};
    return dense ? int64_t{request} * batch.rows_each[s] : int64_t{s == 0 ? request : begin};
  };
  const int64_t query_at = int64_t{head} * batch.head_dim;
  const int64_t key_at = int64_t{head / (batch.heads / batch.key_value_heads)} * batch.head_dim;
  float query[kChunks][kVector] = {};
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (column(c) >= batch.head_dim) continue;
    LoadVector(static_cast<const T*>(batch.query) + row * batch.query_step + query_at + column(c), query[c]);
  }

  constexpr int kAtOnce = StepsAtOnce<T, kChunks>();
  float max = -FLT_MAX, sum = 0;  // finite: of steps that a bias of -inf hides nothing is left, as long as one is seen
  float out[kChunks][kVector] = {};
#pragma unroll 1
  for (int first = 0; first <= batch.step; first += kAtOnce) {
    // Beyond the last step the last one again, of weight zero: without branches loads overlap.
    const auto step = [&](int i) { return first + i < batch.step ? first + i : batch.step; };
    int32_t at[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) at[i] = ancestor(step(i));
    PackedVector<T> key[kAtOnce][kChunks], value[kAtOnce][kChunks];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int s = step(i);
      const int64_t from = (first_of_step(s) + at[i]) * batch.key_value_step + key_at;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (column(c) >= batch.head_dim) continue;
        key[i][c].Load(static_cast<const T*>(batch.key[s]) + from + column(c));
        value[i][c].Load(static_cast<const T*>(batch.value[s]) + from + column(c));
      }
    }
    float score[kAtOnce];
    const float before = max;
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      float dot = 0;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (column(c) >= batch.head_dim) continue;
        float values[kVector];
        key[i][c].Unpack(values);
#pragma unroll
        for (int j = 0; j < kVector; ++j) dot += query[c][j] * values[j];
      }
      for (int offset = kLanes / 2; offset > 0; offset /= 2) dot += __shfl_xor_sync(mask, dot, offset);
      score[i] = -INFINITY;
      if (first + i > batch.step) continue;
      score[i] = dot * batch.scale;
      if (batch.bias != nullptr) score[i] += batch.bias[head * kMaxSteps + batch.step - first - i];
      max = fmaxf(max, score[i]);
    }
    if (first > 0) {  // of what was added by a smaller maximum
      const float kept = expf(before - max);
      sum *= kept;
#pragma unroll
      for (auto& vector : out) {
#pragma unroll
        for (float& x : vector) x *= kept;
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i > batch.step) break;
      const float weight = expf(score[i] - max);
      sum += weight;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if (column(c) >= batch.head_dim) continue;
        float values[kVector];
        value[i][c].Unpack(values);
#pragma unroll
        for (int j = 0; j < kVector; ++j) out[c][j] += weight * values[j];
      }
    }
  }
  const float inverse = 1.0f / sum;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (column(c) >= batch.head_dim) continue;
#pragma unroll
    for (int i = 0; i < kVector; ++i) out[c][i] *= inverse;
    PackedVector<T> packed;
    packed.Pack(out[c]);
    packed.StoreWhole(static_cast<T*>(batch.out) + row * batch.out_step + query_at + column(c));
  }
}

bool Valid(const LineageAttentionBatch& batch) {
  if (batch.heads < 1 || batch.heads > kMaxHeads || batch.key_value_heads < 1 ||
      batch.heads % batch.key_value_heads != 0) {
    return false;
  }
  if (batch.head_dim < 8 || batch.head_dim > kMaxHeadDim || batch.head_dim % 8 != 0) return false;
  if (batch.step < 0 || batch.step >= kMaxSteps || !ValidSelectSizes(batch.requests, batch.rows)) return false;
  const int64_t width = int64_t{batch.heads} * batch.head_dim;
  if (batch.query_step < width || batch.out_step < width || batch.query_step % 8 != 0 || batch.out_step % 8 != 0 ||
      batch.key_value_step < int64_t{batch.key_value_heads} * batch.head_dim || batch.key_value_step % 8 != 0) {
    return false;
  }
  if (batch.query == nullptr || batch.out == nullptr || !IsAligned(batch.query) || !IsAligned(batch.out)) return false;
  if (!AreNaturallyAligned(batch.row_begin, batch.row_count, batch.lineage, batch.bias)) return false;
  for (int s = 0; s <= batch.step; ++s) {
    if (batch.key[s] == nullptr || batch.value[s] == nullptr || !IsAligned(batch.key[s]) ||
        !IsAligned(batch.value[s])) {
      return false;
    }
  }
  if (batch.rows_each[0] != 0) {
    for (int s = 0; s <= batch.step; ++s) {
      if (batch.rows_each[s] < 1) return false;
    }
    return int64_t{batch.requests} * batch.rows_each[batch.step] == batch.rows &&
           (batch.step == 0 || batch.lineage != nullptr);
  }
  return batch.step == 0 || (batch.row_begin != nullptr && batch.row_count != nullptr && batch.lineage != nullptr);
}

}  // namespace

LaunchError LineageAttentionCuda(const LineageAttentionBatch& batch, CudaStream stream) {
  if (!Valid(batch)) return LaunchError::kInvalidArgument;
  const int64_t groups =
      int64_t{batch.step == 0 && batch.rows_each[0] == 0 ? batch.requests : batch.rows} * batch.heads;
  const int64_t blocks = (groups * kLanes + kThreads - 1) / kThreads;
  if (blocks > 0x7fffffff) return LaunchError::kInvalidArgument;
  return WithType(batch.type, [&]<class T>(T) {
    const auto launch = [&](auto kernel) {
      return Launch(kernel, {static_cast<unsigned>(blocks), kThreads}, stream, batch);
    };
    switch ((batch.head_dim + kChunk - 1) / kChunk) {
      case 1:
        return launch(LineageAttention<T, 1>);
      case 2:
        return launch(LineageAttention<T, 2>);
      default:
        return launch(LineageAttention<T, 4>);
    }
  });
}

}  // namespace beamline::kernels
