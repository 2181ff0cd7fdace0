// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/ranker_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {
namespace {

constexpr int kWarps = 8;
constexpr unsigned kFullWarp = 0xffffffffu;
constexpr int64_t kMaxCandidates = int64_t{1} << 26;

__device__ float Sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Whatever the table holds, no load is outside of it.
__device__ int32_t Inside(int32_t row, int32_t rows) { return row >= 0 && row < rows ? row : 0; }

template <class T>
__global__ void __launch_bounds__(kWarps * 32) RankCandidates(const __grid_constant__ RankBatch batch) {
  AwaitPredecessors();
  const int lane = threadIdx.x % 32;
  const int64_t slot = int64_t{blockIdx.x} * kWarps + threadIdx.x / 32;
  if (slot >= int64_t{batch.requests} * batch.slots) return;
  const int32_t request = static_cast<int32_t>(slot / batch.slots);
  if (slot % batch.slots >= batch.count[request]) {
    if (lane == 0) batch.value[slot] = 0.0f;
    return;
  }
  const int64_t row = int64_t{request} * batch.rows + Inside(batch.parent[slot], batch.rows);
  const T* state = static_cast<const T*>(batch.states) + row * batch.width;
  const T* code =
      static_cast<const T*>(batch.code_table) + int64_t{Inside(batch.code[slot], batch.code_rows)} * batch.width;
  const T* head = static_cast<const T*>(batch.head);
  float logit[kMaxRankerHeads] = {};
  for (int32_t i = lane * kVector; i < batch.width; i += 32 * kVector) {
    float hidden[kVector], other[kVector];
    LoadVector(state + i, hidden);
    LoadVector(code + i, other);
#pragma unroll
    for (int j = 0; j < kVector; ++j) {
      const float x = hidden[j] + other[j];
      hidden[j] = x * Sigmoid(x);
    }
#pragma unroll
    for (int h = 0; h < kMaxRankerHeads; ++h) {
      if (h >= batch.heads) break;
      LoadVector(head + int64_t{h} * batch.width + i, other);
#pragma unroll
      for (int j = 0; j < kVector; ++j) logit[h] += hidden[j] * other[j];
    }
  }
  float value = batch.score_weight * batch.score[slot];
#pragma unroll
  for (int h = 0; h < kMaxRankerHeads; ++h) {
    if (h >= batch.heads) break;
    for (int offset = 16; offset > 0; offset /= 2) logit[h] += __shfl_xor_sync(kFullWarp, logit[h], offset);
    value += batch.weight[h] * Sigmoid(logit[h] + ToFloat(static_cast<const T*>(batch.bias)[h]));
  }
  if (lane == 0) batch.value[slot] = value;
}

bool ValidCount(int64_t requests, int64_t each) { return each >= 1 && requests * each <= kMaxCandidates; }

}  // namespace

LaunchError RankCandidatesCuda(const RankBatch& batch, CudaStream stream) {
  if (batch.requests < 1 || !ValidCount(batch.requests, batch.slots) || !ValidCount(batch.requests, batch.rows) ||
      batch.width < 8 || batch.width % kVector != 0 || batch.width > kMaxRankerWidth || batch.heads < 1 ||
      batch.heads > kMaxRankerHeads || batch.code_rows < 1) {
    return LaunchError::kInvalidArgument;
  }
  for (const void* matrix : {batch.states, batch.code_table, batch.head}) {
    if (matrix == nullptr || !IsAligned(matrix)) return LaunchError::kInvalidArgument;
  }
  if (batch.bias == nullptr || batch.count == nullptr || batch.parent == nullptr || batch.code == nullptr ||
      batch.score == nullptr || batch.value == nullptr || !IsAligned(batch.bias, SizeOf(batch.type)) ||
      !AreNaturallyAligned(batch.count, batch.parent, batch.code, batch.score, batch.value)) {
    return LaunchError::kInvalidArgument;
  }
  const int64_t candidates = int64_t{batch.requests} * batch.slots;
  return WithType(batch.type, [&]<class T>(T) {
    return Launch(RankCandidates<T>, {static_cast<unsigned>((candidates + kWarps - 1) / kWarps), kWarps * 32}, stream,
                  batch);
  });
}

}  // namespace beamline::kernels
