// SPDX-License-Identifier: Apache-2.0
//
// Attention by wgmma. A warpgroup has 64 queries in its registers and walks the keys 64 at a time; while the products
// of one step's weights and values run, the weights of the next are made (FlashAttention-3, arXiv 2407.08608). Blocks
// of two warpgroups share what they read of keys and values; blocks of one are for batches that have no more of
// them than the device has multiprocessors. The numbers are the same: a row's sums run over its keys in their order.
#include "cuda/attention_head.cuh"
#include "cuda/device_attribute.cuh"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"
#include "cuda/quad.cuh"
#include "cuda/warpgroups.cuh"
#include "cuda/wgmma.cuh"

namespace beamline::kernels {
namespace {

constexpr int kRows = 64;      // queries of a warpgroup
constexpr int kStepKeys = 64;  // keys of a step
constexpr int kStages = 4;     // steps in shared memory: two read, two under way

// A step's keys, or values, lie in panels of 64 or 32 columns.
template <int kDim>
struct Panels {
  static constexpr int kPanel = kDim % 64 == 0 ? 64 : 32;
  static constexpr int kCount = kDim / kPanel;
  static constexpr uint32_t kRowBytes = kPanel * 2;
  static constexpr uint32_t kBytes = kStepKeys * kRowBytes;  // of one
};

template <class T, int kDim>
struct StepStorage {
  T key[kStages][kStepKeys * kDim];
  T value[kStages][kStepKeys * kDim];
  int32_t order[kStages][kStepKeys];
};

template <class T>
struct Matrix {
  const T* rows;
  int64_t step;  // between them
  int32_t count;
};

// Rows [first, first + kStepKeys) of a matrix; rows beyond it become zeros.
template <class T, int kDim, int kThreads>
__device__ void LoadStep(T* tile, const Matrix<T>& of, int32_t first) {
  using P = Panels<kDim>;
  constexpr int kChunks = P::kPanel / 8, kPassRows = kThreads / kChunks;
  static_assert(kPassRows % 8 == 0 && kStepKeys % kPassRows == 0, "a thread's chunks are permuted alike");
  const int32_t row = threadIdx.x / kChunks, chunk = threadIdx.x % kChunks;
  T* to = tile + row * P::kPanel + PanelChunk<P::kPanel>(row, chunk) * 8;
  const T* from = of.rows + (int64_t{first} + row) * of.step + chunk * 8;
  const auto copy = [&](auto valid) {
#pragma unroll
    for (int i = 0; i < kStepKeys; i += kPassRows) {
#pragma unroll
      for (int p = 0; p < P::kCount; ++p) {
        const bool there = valid(i);
        CopyAsync16(to + p * (kStepKeys * P::kPanel) + i * P::kPanel,
                    there ? from + i * of.step + p * P::kPanel : of.rows, there);
      }
    }
  };
  if (first + kStepKeys <= of.count) {
    copy([](int) { return true; });
  } else {
    copy([&](int i) { return first + row + i < of.count; });
  }
}

// This thread's two rows of a warpgroup's sums: lane / 4 of the warp's sixteen, and eight below.
template <int kDim>
struct RowSums {
  float out[Panels<kDim>::kCount][Panels<kDim>::kPanel / 2] = {};
  float max[2] = {-INFINITY, -INFINITY};  // of the scores, in units of log2 e
  float sum[2] = {};                      // this lane's share
};

// score: 8 columns after another, of each the lane's two of both rows.
template <class F>
__device__ void ForEachScore(float (&score)[kStepKeys / 2], F f) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kStepKeys / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) f(score[n * 4 + i], i / 2, n * 8 + column + i % 2);
  }
}

// Turns scores, which times `scale` are in units of log2 e, into weights relative to the largest so far. Returns in
// `rescale` what the sums before have to be multiplied by.
template <int kDim>
__device__ void Weigh(float (&score)[kStepKeys / 2], float scale, RowSums<kDim>& sums, float (&rescale)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float largest = -INFINITY;
#pragma unroll
    for (int n = 0; n < kStepKeys / 8; ++n) {
      largest = fmaxf(largest, fmaxf(score[n * 4 + r * 2], score[n * 4 + r * 2 + 1]));
    }
    largest = QuadMax(largest);
    const float new_max = fmaxf(sums.max[r], largest * scale);
    const float shift = new_max == -INFINITY ? 0.0f : new_max;  // nothing seen yet: keeps exp2(-inf) = 0
    rescale[r] = FastExp2(sums.max[r] - shift);
    sums.max[r] = new_max;
    float total = 0;
#pragma unroll
    for (int n = 0; n < kStepKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& weight = score[n * 4 + r * 2 + i];
        weight = FastExp2(fmaf(weight, scale, -shift));
        total += weight;
      }
    }
    sums.sum[r] = sums.sum[r] * rescale[r] + total;
  }
}

// The weights of a step as left operands of its four products with values.
template <class T>
__device__ void PackWeights(const float (&weight)[kStepKeys / 2], uint32_t (&packed)[kStepKeys / 16][4]) {
#pragma unroll
  for (int k = 0; k < kStepKeys / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) packed[k][i] = Pack<T>(weight[k * 8 + i * 2], weight[k * 8 + i * 2 + 1]);
  }
}

// This thread's part of 64 queries as left operands; zeros beyond the last.
template <class T, int kDim>
__device__ void LoadQueries(const Head<T>& head, int64_t step, int32_t row, uint32_t (&query)[kDim / 16][4]) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int k = 0; k < kDim / 16; ++k) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int32_t at = row + i % 2 * 8;
      query[k][i] = at < head.queries
                        ? *reinterpret_cast<const uint32_t*>(head.query + at * step + k * 16 + i / 2 * 8 + column)
                        : 0u;
    }
  }
}

template <class T, int kDim>
__device__ void StartScores(const uint32_t (&query)[kDim / 16][4], uint32_t key, float (&score)[kStepKeys / 2]) {
  using P = Panels<kDim>;
#pragma unroll
  for (int k = 0; k < kDim; k += 16) {
    const uint32_t at = key + k / P::kPanel * P::kBytes + k % P::kPanel * 2;
    WarpgroupMultiply<T, kStepKeys, false>(score, query[k / 16], PanelDescriptor<P::kPanel>(at), k > 0);
  }
  WarpgroupCommit();
}

template <class T, int kDim>
__device__ void StartValues(const uint32_t (&weight)[kStepKeys / 16][4], uint32_t value, RowSums<kDim>& sums) {
  using P = Panels<kDim>;
#pragma unroll
  for (int k = 0; k < kStepKeys / 16; ++k) {
#pragma unroll
    for (int p = 0; p < P::kCount; ++p) {
      const uint32_t at = value + p * P::kBytes + k * 16 * P::kRowBytes;
      WarpgroupMultiply<T, P::kPanel, true>(sums.out[p], weight[k], PanelDescriptor<P::kPanel>(at), true);
    }
  }
  WarpgroupCommit();
}

template <class T, int kDim, bool kBias, int kWarpgroups>
__global__ void __launch_bounds__(128 * kWarpgroups, 1)
    WarpgroupAttention(const __grid_constant__ AttentionBatch batch) {
  AwaitPredecessorsAlone();
#if BEAMLINE_COMPILES_WGMMA
  constexpr int kThreads = 128 * kWarpgroups;
  const Head<T> head = HeadOf<T>(batch, blockIdx.z, blockIdx.y);
  const int32_t first_query = blockIdx.x * (kRows * kWarpgroups);
  if (first_query >= head.queries) return;
  auto& steps = *AlignedForWarpgroups<StepStorage<T, kDim>>(DynamicShared<unsigned char>());
  const bool same = head.key == head.value;
  const int32_t count = (head.keys + kStepKeys - 1) / kStepKeys;

  const auto load = [&](int32_t step) {
    if (step < count) {
      const int stage = step % kStages;
      const int32_t first = step * kStepKeys;
      LoadStep<T, kDim, kThreads>(steps.key[stage], {head.key, batch.key_value_step, head.keys}, first);
      if (!same) LoadStep<T, kDim, kThreads>(steps.value[stage], {head.value, batch.key_value_step, head.keys}, first);
      if (head.key_order != nullptr && threadIdx.x < kStepKeys) {
        const int32_t key = first + static_cast<int32_t>(threadIdx.x);
        CopyAsync4(&steps.order[stage][threadIdx.x], head.key_order + (key < head.keys ? key : 0));
      }
    }
    CopyAsyncCommit();  // an empty group where there is nothing: they are counted
  };
#pragma unroll 1
  for (int32_t step = 0; step < 2; ++step) load(step);

  const int lane = threadIdx.x % 32;
  const int32_t warp_row = first_query + static_cast<int32_t>(threadIdx.x / 32) * 16;
  const int32_t row = warp_row + lane / 4;
  uint32_t query[kDim / 16][4];
  LoadQueries<T, kDim>(head, batch.query_step, row, query);
  int32_t limit[2] = {INT32_MAX, INT32_MAX};
  int32_t least_limit = INT32_MAX;
  if (head.key_order != nullptr) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (row + r * 8 < head.queries) limit[r] = head.Limit(row + r * 8);
    }
    least_limit = min(limit[0], limit[1]);
    for (int offset = 16; offset > 0; offset /= 2) {
      least_limit = min(least_limit, __shfl_xor_sync(0xffffffffu, least_limit, offset));
    }
  }

  const float scale = batch.scale * kLog2E;
  RowSums<kDim> sums;
  float score[kStepKeys / 2], rescale[2];
  uint32_t weight[kStepKeys / 16][4];
  const auto value_of = [&](int32_t step) {
    return SharedAddress(same ? steps.key[step % kStages] : steps.value[step % kStages]);
  };
  // The step's keys and values are there for all, and those that are loaded into are read by none.
  const auto begin = [&](int32_t step) {
    CopyAsyncWait<1>();
    AnnounceToWarpgroups();
    __syncthreads();
    load(step + 2);
    if (step == max(0, count - 2)) AdmitSuccessors();
  };
  const auto weigh = [&](int32_t step) {
    const int32_t first_key = step * kStepKeys;
    const int32_t* order = steps.order[step % kStages];
    if constexpr (kBias) {
      ForEachScore(score, [&](float& x, int r, int key) {
        x = x * scale + kLog2E * Bias(head, batch.reach, row + r * 8, first_key + key);
      });
    }
    bool hidden = first_key + kStepKeys > head.keys;
    if (head.key_order != nullptr) hidden |= __any_sync(0xffffffffu, max(order[lane], order[lane + 32]) > least_limit);
    if (hidden) {
      ForEachScore(score, [&](float& x, int r, int key) {
        const bool sees =
            (first_key + key < head.keys) & (head.key_order == nullptr || order[key] <= limit[r]);  // no branch
        x = sees ? x : -INFINITY;
      });
    }
    Weigh(score, kBias ? 1.0f : scale, sums, rescale);
  };

  // Ends the products with the values of the step before the last, for which the last one's weights are ready.
  const auto end_values = [&] {
    WarpgroupWait<0>();
#pragma unroll
    for (auto& panel : sums.out) {
      Pin(panel);
#pragma unroll
      for (int i = 0; i < Panels<kDim>::kPanel / 2; ++i) panel[i] *= rescale[i / 2 % 2];
    }
    PackWeights<T>(score, weight);
  };

  if (count > 0) {
    begin(0);
    WarpgroupArrive();
    StartScores<T, kDim>(query, SharedAddress(steps.key[0]), score);
    WarpgroupWait<0>();
    Pin(score);
    weigh(0);
    for (int32_t step = 1; step < count; ++step) {
      end_values();
      begin(step);
      WarpgroupArrive();
      StartScores<T, kDim>(query, SharedAddress(steps.key[step % kStages]), score);
      StartValues<T, kDim>(weight, value_of(step - 1), sums);
      WarpgroupWait<1>();
      Pin(score);
      weigh(step);  // while the products with values run
      Pin(score);
      Pin(rescale);
    }
    end_values();
    WarpgroupArrive();
    StartValues<T, kDim>(weight, value_of(count - 1), sums);
    WarpgroupWait<0>();
#pragma unroll
    for (auto& panel : sums.out) Pin(panel);
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sums.sum[r] = QuadSum(sums.sum[r]);
    const float inverse = sums.sum[r] > 0.0f ? 1.0f / sums.sum[r] : 0.0f;
    T* to = head.out + (row + r * 8) * batch.out_step + lane % 4 * 8;
#pragma unroll
    for (int eight = 0; eight < kDim / 8; eight += 4) {
      const uint4 whole = GatherEights<T>([&](int i) {
        constexpr int kEights = Panels<kDim>::kPanel / 8;
        const float* pair = &sums.out[(eight + i) / kEights][(eight + i) % kEights * 4 + r * 2];
        return float2{pair[0] * inverse, pair[1] * inverse};
      });
      if (row + r * 8 < head.queries) __stwb(reinterpret_cast<uint4*>(to + eight * 8), whole);
    }
  }
#endif
}

template <class T, class F>
LaunchError WithKernel(const AttentionBatch& batch, int warpgroups, F f) {
  const auto with_dim = [&]<int kDim>() {
    const auto with_bias = [&]<bool kBias>() {
      constexpr size_t kBytes = sizeof(StepStorage<T, kDim>) + kWarpgroupAlignment;
      return warpgroups == 2 ? f(WarpgroupAttention<T, kDim, kBias, 2>, kBytes)
                             : f(WarpgroupAttention<T, kDim, kBias, 1>, kBytes);
    };
    return batch.relative_bias == nullptr ? with_bias.template operator()<false>()
                                          : with_bias.template operator()<true>();
  };
  switch (batch.head_dim) {
    case 32:
      return with_dim.template operator()<32>();
    case 64:
      return with_dim.template operator()<64>();
    case 96:
      return with_dim.template operator()<96>();
    case 128:
      return with_dim.template operator()<128>();
    default:
      return LaunchError::kInvalidArgument;
  }
}

}  // namespace

bool TakesWarpgroups(const AttentionBatch& batch) {
  return batch.warpgroups && (batch.type == DataType::kBFloat16 || batch.type == DataType::kFloat16) &&
         batch.head_dim % 32 == 0 && batch.head_dim <= 128 && HasWarpgroups();
}

LaunchError WarpgroupAttentionCuda(const AttentionBatch& batch, CudaStream stream) {
  const auto blocks = [&](int warpgroups) {
    return (batch.max_queries + kRows * warpgroups - 1) / (kRows * warpgroups);
  };
  const int64_t of_one = int64_t{blocks(1)} * batch.heads * batch.requests;  // a multiprocessor holds one of them
  const int warpgroups = of_one <= DeviceAttribute(cudaDevAttrMultiProcessorCount) ? 1 : 2;
  const dim3 grid(blocks(warpgroups), batch.heads, batch.requests);
  return WithType(batch.type, [&]<class T>(T) {
    if constexpr (__is_same(T, float)) {
      return LaunchError::kInvalidArgument;
    } else {
      return WithKernel<T>(batch, warpgroups, [&](auto kernel, size_t bytes) {
        return Launch(kernel, {grid, static_cast<unsigned>(128 * warpgroups), bytes}, stream, batch);
      });
    }
  });
}

LaunchError WarpgroupAttentionPrepare() {
  static const float bias = 0;
  for (const DataType type : {DataType::kBFloat16, DataType::kFloat16}) {
    for (const int32_t head_dim : {32, 64, 96, 128}) {
      for (const float* relative_bias : {static_cast<const float*>(nullptr), &bias}) {
        for (const int warpgroups : {1, 2}) {
          AttentionBatch batch;
          batch.type = type;
          batch.head_dim = head_dim;
          batch.relative_bias = relative_bias;
          batch.warpgroups = true;
          const LaunchError error = type == DataType::kBFloat16
                                        ? WithKernel<__nv_bfloat16>(batch, warpgroups, AllowShared)
                                        : WithKernel<__half>(batch, warpgroups, AllowShared);
          if (error != LaunchError::kOk) return error;
        }
      }
    }
  }
  return LaunchError::kOk;
}

}  // namespace beamline::kernels
