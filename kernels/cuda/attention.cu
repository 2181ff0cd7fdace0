// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/attention_cuda.h"
#include "cuda/attention_head.cuh"
#include "cuda/launch.cuh"
#include "cuda/mma.cuh"
#include "cuda/quad.cuh"
#include "cuda/vector.cuh"
#include "cuda/warpgroups.cuh"

namespace beamline::kernels {
namespace {

// -- Tensor cores -------------------------------------------------------------------------------------------------
// A block has 64 queries and walks the keys 128 at a time, double-buffered. Of its eight warps two share a group of
// keys, a quarter of each step, and have 32 of the queries each: enough warps to hide latency where there are few
// queries, and every row's sums are made in the same parts whatever else is there. The groups' sums are joined at the
// end (flash-decoding's split, inside of a block).

constexpr int kQueries = 64;
constexpr int kKeys = 128;
constexpr int kGroups = 4;
constexpr int kGroupKeys = kKeys / kGroups;
constexpr int kWarpRows = 32;  // two tiles of 16
constexpr int kTileThreads = 32 * kGroups * (kQueries / kWarpRows);
static_assert(kGroupKeys == 32 && kWarpRows == 32, "what one warp loads another one uses");
constexpr int kPad = 8;  // values behind each row in shared memory: eight rows lie in different banks

template <class T, int kDim>
struct __align__(16) TileStorage {
  T query[kQueries][kDim + kPad];
  union {
    struct {
      T key[2][kKeys][kDim + kPad];
      T value[2][kKeys][kDim + kPad];
    };
    float part[kGroups][kQueries][kDim + 4];  // the groups' sums, when the keys have been read
  };
  float max[kGroups][kQueries];  // of the scores, in units of log2 e
  float sum[kGroups][kQueries];
  int32_t limit[kQueries];
  int32_t least_limit[kQueries / kWarpRows];
  int32_t order[2][kKeys];
  int32_t largest_order[2][kGroups];
};

template <class T>
struct TileSource {
  const T* rows;
  int64_t step;  // between them
  int32_t count;
};

// Rows [first, first + kRows) of a matrix; rows beyond it become zeros.
template <class T, int kDim, int kRows>
__device__ void LoadTile(T (&tile)[kRows][kDim + kPad], const TileSource<T>& of, int32_t first) {
  constexpr int kChunks = kDim / 8;
#pragma unroll 2  // all at once would take the registers of the sums
  for (int i = threadIdx.x; i < kRows * kChunks; i += kTileThreads) {
    const int row = i / kChunks, column = i % kChunks * 8;
    const bool valid = first + row < of.count;
    CopyAsync16(&tile[row][column], valid ? of.rows + (first + row) * of.step + column : of.rows, valid);
  }
}

// The sums of a warp's rows over its group's keys so far. A lane has four rows of them: lane / 4, and 8, 16, 24 below.
template <int kDim>
struct Sums {
  float out[2][kDim / 8][4] = {};
  float max[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
  float sum[4] = {};  // this lane's share
};

// Scores of 32 rows for 32 keys.
template <class T, int kDim>
__device__ void Scores(const T (*query)[kDim + kPad], const T (*key)[kDim + kPad],
                       float (&score)[2][kGroupKeys / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kDim; k += 16) {
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) LoadMatrix4(a[m], &query[m * 16 + lane % 16][k + lane / 16 * 8]);
#pragma unroll
    for (int n = 0; n < kGroupKeys; n += 16) {
      uint32_t b[4];
      LoadMatrix4(b, &key[n + lane / 16 * 8 + lane % 8][k + lane / 8 % 2 * 8]);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        MatrixMultiply<T>(score[m][n / 8], a[m], b[0], b[1]);
        MatrixMultiply<T>(score[m][n / 8 + 1], a[m], b[2], b[3]);
      }
    }
  }
}

// Turns scores into weights relative to the largest so far, and what was summed before likewise. Scores times `scale`
// are in units of log2 e.
template <int kDim>
__device__ void Weigh(float (&score)[2][kGroupKeys / 8][4], float scale, Sums<kDim>& sums) {
  float rescale[4];
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    float tile_max = -INFINITY;
#pragma unroll
    for (int n = 0; n < kGroupKeys / 8; ++n) {
      tile_max = fmaxf(tile_max, fmaxf(score[r / 2][n][r % 2 * 2], score[r / 2][n][r % 2 * 2 + 1]));
    }
    tile_max = QuadMax(tile_max);
    const float new_max = fmaxf(sums.max[r], tile_max * scale);
    const float shift = new_max == -INFINITY ? 0.0f : new_max;  // nothing seen yet: keeps exp2(-inf) = 0
    rescale[r] = FastExp2(sums.max[r] - shift);
    sums.max[r] = new_max;
    sums.sum[r] *= rescale[r];
#pragma unroll
    for (int n = 0; n < kGroupKeys / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& weight = score[r / 2][n][r % 2 * 2 + i];
        weight = FastExp2(fmaf(weight, scale, -shift));
        sums.sum[r] += weight;
      }
    }
  }
  // Most steps find no larger score, and times one changes nothing.
  const bool larger = rescale[0] != 1.0f || rescale[1] != 1.0f || rescale[2] != 1.0f || rescale[3] != 1.0f;
  if (!__any_sync(0xffffffffu, larger)) return;
#pragma unroll
  for (int n = 0; n < kDim / 8; ++n) {
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      sums.out[r / 2][n][r % 2 * 2] *= rescale[r];
      sums.out[r / 2][n][r % 2 * 2 + 1] *= rescale[r];
    }
  }
}

// Adds 32 values by their weights.
template <class T, int kDim>
__device__ void AddValues(const float (&weight)[2][kGroupKeys / 8][4], const T (*value)[kDim + kPad],
                          float (&out)[2][kDim / 8][4]) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < kGroupKeys; k += 16) {  // an accumulator's layout is that of the left operand
    uint32_t a[2][4];
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      const float(&low)[4] = weight[m][k / 8];
      const float(&high)[4] = weight[m][k / 8 + 1];
      a[m][0] = Pack<T>(low[0], low[1]);
      a[m][1] = Pack<T>(low[2], low[3]);
      a[m][2] = Pack<T>(high[0], high[1]);
      a[m][3] = Pack<T>(high[2], high[3]);
    }
#pragma unroll
    for (int n = 0; n < kDim; n += 16) {
      uint32_t b[4];
      LoadMatrix4Transposed(b, &value[k + lane % 16][n + lane / 16 * 8]);
#pragma unroll
      for (int m = 0; m < 2; ++m) {
        MatrixMultiply<T>(out[m][n / 8], a[m], b[0], b[1]);
        MatrixMultiply<T>(out[m][n / 8 + 1], a[m], b[2], b[3]);
      }
    }
  }
}

template <class T, int kDim, bool kBias>
__global__ void __launch_bounds__(kTileThreads, 1) TileAttention(const __grid_constant__ AttentionBatch batch) {
  AwaitPredecessors();
  auto& tiles = *DynamicShared<TileStorage<T, kDim>>();
  const Head<T> head = HeadOf<T>(batch, blockIdx.z, blockIdx.y);
  const int32_t first_query = blockIdx.x * kQueries;
  if (first_query >= head.queries) return;
  const bool same = head.key == head.value;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int group = warp % kGroups, warp_row = warp / kGroups * kWarpRows;

  const auto load_keys = [&](int stage, int32_t first) {
    LoadTile<T, kDim>(tiles.key[stage], {head.key, batch.key_value_step, head.keys}, first);
    if (!same) LoadTile<T, kDim>(tiles.value[stage], {head.value, batch.key_value_step, head.keys}, first);
    CopyAsyncCommit();
    if (threadIdx.x < kKeys) {
      const int32_t key = first + static_cast<int32_t>(threadIdx.x);
      int32_t order = head.key_order != nullptr && key < head.keys ? head.key_order[key] : 0;
      tiles.order[stage][threadIdx.x] = order;
      for (int offset = 16; offset > 0; offset /= 2) order = max(order, __shfl_xor_sync(0xffffffffu, order, offset));
      if (lane == 0) tiles.largest_order[stage][warp] = order;  // 32 keys are a warp's here and a group's below
    }
  };
  if (threadIdx.x < kQueries) {
    const int32_t row = first_query + static_cast<int32_t>(threadIdx.x);
    const bool limited = head.query_limit != nullptr && row < head.queries;
    int32_t limit = limited ? head.Limit(row) : INT32_MAX;
    tiles.limit[threadIdx.x] = limit;
    for (int offset = 16; offset > 0; offset /= 2) limit = min(limit, __shfl_xor_sync(0xffffffffu, limit, offset));
    if (lane == 0) tiles.least_limit[warp] = limit;
  }
  LoadTile<T, kDim>(tiles.query, {head.query, batch.query_step, head.queries}, first_query);
  load_keys(0, 0);

  const float scale = batch.scale * kLog2E;
  Sums<kDim> sums;
  int stage = 0;
  for (int32_t first_key = 0; first_key < head.keys; first_key += kKeys, stage ^= 1) {
    if (first_key + kKeys < head.keys) {
      load_keys(stage ^ 1, first_key + kKeys);
      CopyAsyncWait<1>();
    } else {
      CopyAsyncWait<0>();
    }
    __syncthreads();
    if (first_key + group * kGroupKeys < head.keys && first_query + warp_row < head.queries) {
      float score[2][kGroupKeys / 8][4] = {};
      Scores<T, kDim>(&tiles.query[warp_row], &tiles.key[stage][group * kGroupKeys], score);
      const auto for_each = [&](auto f) {  // score: the block's row, the step's key
#pragma unroll
        for (int m = 0; m < 2; ++m) {
#pragma unroll
          for (int n = 0; n < kGroupKeys / 8; ++n) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              f(score[m][n][i], warp_row + lane / 4 + 8 * (m * 2 + i / 2),
                group * kGroupKeys + n * 8 + lane % 4 * 2 + i % 2);
            }
          }
        }
      };
      if constexpr (kBias) {
        for_each([&](float& x, int row, int key) {
          x = x * scale + kLog2E * Bias(head, batch.reach, first_query + row, first_key + key);
        });
      }
      if (first_key + (group + 1) * kGroupKeys > head.keys ||
          tiles.largest_order[stage][group] > tiles.least_limit[warp / kGroups]) {
        for_each([&](float& x, int row, int key) {
          const bool sees = (first_key + key < head.keys) & (tiles.order[stage][key] <= tiles.limit[row]);  // no branch
          x = sees ? x : -INFINITY;
        });
      }
      Weigh(score, kBias ? 1.0f : scale, sums);
      auto& value = same ? tiles.key[stage] : tiles.value[stage];
      AddValues<T, kDim>(score, &value[group * kGroupKeys], sums.out);
    }
    __syncthreads();  // before the next step's copies overwrite this stage, or the groups' sums the keys
  }
  CopyAsyncWait<0>();  // without keys, copies are still under way
  __syncthreads();

#pragma unroll
  for (int r = 0; r < 4; ++r) {
    sums.sum[r] = QuadSum(sums.sum[r]);
    const int row = warp_row + lane / 4 + 8 * r;
    if (lane % 4 == 0) {
      tiles.max[group][row] = sums.max[r];
      tiles.sum[group][row] = sums.sum[r];
    }
#pragma unroll
    for (int n = 0; n < kDim / 8; ++n) {
      float* to = &tiles.part[group][row][n * 8 + lane % 4 * 2];
      to[0] = sums.out[r / 2][n][r % 2 * 2];
      to[1] = sums.out[r / 2][n][r % 2 * 2 + 1];
    }
  }
  __syncthreads();

  constexpr int kVectors = kDim / kVector;
  for (int i = threadIdx.x; i < kQueries * kVectors; i += kTileThreads) {
    const int row = i / kVectors, column = i % kVectors * kVector;
    if (first_query + row >= head.queries) continue;
    float max = -INFINITY, sum = 0, out[kVector] = {};
#pragma unroll
    for (int g = 0; g < kGroups; ++g) max = fmaxf(max, tiles.max[g][row]);
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
      const float share = max == -INFINITY ? 0.0f : FastExp2(tiles.max[g][row] - max);
      sum += share * tiles.sum[g][row];
#pragma unroll
      for (int j = 0; j < kVector; ++j) out[j] += share * tiles.part[g][row][column + j];
    }
    const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
#pragma unroll
    for (float& o : out) o *= inverse;
    StoreVector(head.out + (first_query + row) * batch.out_step + column, out);
  }
}

// -- Any type and head size -----------------------------------------------------------------------------------------
// One warp per query: a lane per key for the scores, a lane per value column for the sum.

constexpr int kRowWarps = 4;

template <class T>
__global__ void __launch_bounds__(kRowWarps * 32) RowAttention(const __grid_constant__ AttentionBatch batch) {
  AwaitPredecessors();
  __shared__ float queries[kRowWarps][kMaxHeadDim];
  const Head<T> head = HeadOf<T>(batch, blockIdx.z, blockIdx.y);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int32_t row = blockIdx.x * kRowWarps + warp;
  if (row >= head.queries) return;
  float* query = queries[warp];
  for (int i = lane; i < batch.head_dim; i += 32) query[i] = ToFloat(head.query[row * batch.query_step + i]);
  __syncwarp();
  const int32_t limit = head.query_limit == nullptr ? 0 : head.Limit(row);
  float max = -INFINITY, sum = 0;
  float out[kMaxHeadDim / 32] = {};
  for (int32_t first_key = 0; first_key < head.keys; first_key += 32) {
    const int32_t key = first_key + lane;
    float x = -INFINITY;
    if (key < head.keys && (head.key_order == nullptr || head.key_order[key] <= limit)) {
      const T* from = head.key + key * batch.key_value_step;
      float dot = 0;
      for (int i = 0; i < batch.head_dim; i += kVector) {
        float values[kVector];
        LoadVector(from + i, values);
#pragma unroll
        for (int j = 0; j < kVector; ++j) dot += query[i + j] * values[j];
      }
      x = dot * batch.scale;
      if (head.bias != nullptr) x += Bias(head, batch.reach, row, key);
    }
    float tile_max = x;
    for (int offset = 16; offset > 0; offset /= 2) {
      tile_max = fmaxf(tile_max, __shfl_xor_sync(0xffffffffu, tile_max, offset));
    }
    const float new_max = fmaxf(max, tile_max);
    if (!__any_sync(0xffffffffu, x != -INFINITY)) continue;  // no key seen; a NaN is one, which fmaxf() passes over
    const float rescale = expf(max - new_max);
    max = new_max;
    const float weight = expf(x - max);
    float total = weight;
    for (int offset = 16; offset > 0; offset /= 2) total += __shfl_xor_sync(0xffffffffu, total, offset);
    sum = sum * rescale + total;
#pragma unroll
    for (float& o : out) o *= rescale;
    const int32_t count = head.keys - first_key < 32 ? head.keys - first_key : 32;
    for (int32_t k = 0; k < count; ++k) {
      const float w = __shfl_sync(0xffffffffu, weight, k);
      const T* from = head.value + (first_key + k) * batch.key_value_step + lane;
#pragma unroll
      for (int i = 0; i < kMaxHeadDim / 32; ++i) {
        if (i * 32 + lane < batch.head_dim) out[i] += w * ToFloat(from[i * 32]);
      }
    }
  }
  const float inverse = sum > 0.0f ? 1.0f / sum : 0.0f;
  T* to = head.out + row * batch.out_step + lane;
#pragma unroll
  for (int i = 0; i < kMaxHeadDim / 32; ++i) {
    if (i * 32 + lane < batch.head_dim) to[i * 32] = FromFloat<T>(out[i] * inverse);
  }
}

// Calls f with the kernel for tensor cores and its shared memory, where there is one.
template <class T, bool kBias, class F>
void WithTileKernel(int32_t head_dim, F f) {
  switch (head_dim) {
    case 32:
      return f(TileAttention<T, 32, kBias>, sizeof(TileStorage<T, 32>));
    case 64:
      return f(TileAttention<T, 64, kBias>, sizeof(TileStorage<T, 64>));
    case 96:
      return f(TileAttention<T, 96, kBias>, sizeof(TileStorage<T, 96>));
    case 128:
      return f(TileAttention<T, 128, kBias>, sizeof(TileStorage<T, 128>));
    default:
      return;
  }
}

// Devices 8.6 and 8.9 have too little shared memory for large heads: these go the way of any type there.
bool Fits(size_t bytes) {
  int device = 0, most = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess &&
         bytes <= static_cast<size_t>(most);
}

bool Valid(const AttentionBatch& batch) {
  if (batch.heads < 1 || batch.heads > kMaxHeads || batch.key_value_heads < 1 ||
      batch.heads % batch.key_value_heads != 0) {
    return false;
  }
  if (batch.head_dim < 8 || batch.head_dim > kMaxHeadDim || batch.head_dim % 8 != 0 || !(batch.scale > 0)) return false;
  const int64_t row = int64_t{batch.heads} * batch.head_dim;
  if (batch.query_step < row || batch.out_step < row || batch.query_step % 8 != 0 || batch.out_step % 8 != 0 ||
      batch.key_value_step < int64_t{batch.key_value_heads} * batch.head_dim || batch.key_value_step % 8 != 0) {
    return false;
  }
  for (const void* array : {batch.query, batch.key, batch.value, static_cast<const void*>(batch.out)}) {
    if (array == nullptr || !IsAligned(array)) return false;
  }
  if (batch.requests < 1 || batch.requests > 65535) return false;
  if (batch.max_queries < 1 || batch.max_queries > kMaxAttentionRows) return false;
  if (batch.max_keys > kMaxAttentionRows) return false;
  if ((batch.query_begin != nullptr && batch.query_count == nullptr) ||
      (batch.key_begin == nullptr ? batch.max_keys < 1 : batch.key_count == nullptr) || batch.limit_repeat < 1 ||
      (batch.key_order == nullptr) != (batch.query_limit == nullptr)) {
    return false;
  }
  if (!AreNaturallyAligned(batch.query_begin, batch.query_count, batch.key_begin, batch.key_count, batch.key_order,
                           batch.query_limit, batch.relative_bias)) {
    return false;
  }
  return batch.relative_bias == nullptr || (batch.reach >= 0 && batch.reach <= kMaxReach);
}

}  // namespace

LaunchError AttentionCuda(const AttentionBatch& batch, CudaStream stream) {
  if (!Valid(batch)) return LaunchError::kInvalidArgument;
  if (TakesWarpgroups(batch)) return WarpgroupAttentionCuda(batch, stream);
  return WithType(batch.type, [&]<class T>(T) {
    if constexpr (!__is_same(T, float)) {
      const dim3 grid((batch.max_queries + kQueries - 1) / kQueries, batch.heads, batch.requests);
      bool fits = false;
      LaunchError launched = LaunchError::kOk;
      const auto launch = [&](auto kernel, size_t bytes) {
        fits = Fits(bytes);
        if (fits) launched = Launch(kernel, {grid, kTileThreads, bytes}, stream, batch);
      };
      if (batch.relative_bias == nullptr) {
        WithTileKernel<T, false>(batch.head_dim, launch);
      } else {
        WithTileKernel<T, true>(batch.head_dim, launch);
      }
      if (fits) return launched;
    }
    const dim3 grid((batch.max_queries + kRowWarps - 1) / kRowWarps, batch.heads, batch.requests);
    return Launch(RowAttention<T>, {grid, kRowWarps * 32}, stream, batch);
  });
}

LaunchError AttentionPrepare() {
  bool ok = true;
  const auto prepare = [&](auto kernel, size_t bytes) {
    ok &= !Fits(bytes) || cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               static_cast<int>(bytes)) == cudaSuccess;
  };
  for (int32_t head_dim : {32, 64, 96, 128}) {
    WithTileKernel<__nv_bfloat16, false>(head_dim, prepare);
    WithTileKernel<__nv_bfloat16, true>(head_dim, prepare);
    WithTileKernel<__half, false>(head_dim, prepare);
    WithTileKernel<__half, true>(head_dim, prepare);
  }
  return ok ? LaunchError::kOk : LaunchError::kCuda;
}

}  // namespace beamline::kernels
