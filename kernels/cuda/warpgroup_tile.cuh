// SPDX-License-Identifier: Apache-2.0
//
// The product of a block's rows and columns by wgmma, k in tiles of 64: for kernels that differ in where the rows lie
// and what becomes of the sums. Few rows are a matter of reading the weights once: blocks of one warpgroup, 64 rows and
// 128 columns, two of which a multiprocessor holds. Many are one of the matrix rate, and before it of the cache's:
// blocks of two warpgroups, 128 rows and 256 columns. Small products are one of having a block for every
// multiprocessor: 64 rows and columns, two blocks on one. The sums run over k in the same order in all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device_attribute.cuh"
#include "cuda/mma.cuh"
#include "cuda/panel.cuh"
#include "cuda/wgmma.cuh"

namespace beamline::kernels {

// kWarpgroups warpgroups of 64 rows, each with as many parts of kPartColumns columns, one instruction's. Of the stages
// one is read, one may still be, the others are under way.
template <int kWarpgroupsOf, int kPartColumnsOf, int kStagesOf>
struct TileShape {
  static constexpr int kWarpgroups = kWarpgroupsOf;
  static constexpr int kPartColumns = kPartColumnsOf;
  static constexpr int kStages = kStagesOf;
};
using Tile64x64 = TileShape<1, 64, 6>;
using Tile64x128 = TileShape<1, 128, 4>;
using Tile128x256 = TileShape<2, 128, 4>;

template <class T, class Shape>
struct WarpgroupTile {
  static constexpr int kWarpgroups = Shape::kWarpgroups, kPartColumns = Shape::kPartColumns;
  static constexpr int kRows = 64 * kWarpgroups;
  static constexpr int kColumns = kPartColumns * kWarpgroups;
  static constexpr int kThreads = 128 * kWarpgroups;
  static constexpr int kBlocks = 3 - kWarpgroups;  // that a multiprocessor holds
  static constexpr int kDepth = 64;                // of a panel
  static constexpr int kStages = Shape::kStages;
  static constexpr int kAhead = kStages - 2;

  struct Storage {
    T x[kStages][kRows * kDepth];
    T weight[kStages][kColumns * kDepth];
  };
  static constexpr size_t kBytes = sizeof(Storage) + kWarpgroupAlignment;

  // A thread's sums: of two of the warpgroup's rows (Row), in parts of columns; of each eight columns two
  // neighbours (Column) of both rows.
  float sum[kWarpgroups][kPartColumns / 2] = {};

  // In the tile. `half`: 0 or 1.
  __device__ static int Row(int half) {
    return static_cast<int>(threadIdx.x / 32) * 16 + half * 8 + static_cast<int>(threadIdx.x % 32 / 4);
  }
  __device__ static int Column(int eight) { return eight * 8 + static_cast<int>(threadIdx.x % 4) * 2; }
  // The first of a row's two neighbours among the eight columns from 8 * `eight` on.
  __device__ const float* Pair(int half, int eight) const {
    return &sum[eight * 8 / kPartColumns][eight * 8 % kPartColumns / 2 + 2 * half];
  }

  struct Inner {
    int32_t k;
    const T* some;  // memory that may be named where nothing is read
  };
  // row(i), column(i): where the k values of the tile's row i, and of the weight's row for its column i, begin; null
  // where there is none.
  template <class RowOf, class ColumnOf>
  __device__ void Multiply(Storage& storage, RowOf row, ColumnOf column, Inner inner) {
    const int32_t k = inner.k;
    const T* const some = inner.some;
    // Each thread copies 16 bytes of the same rows in every step, to the same place of their panels.
    constexpr int kChunks = kDepth / 8, kPassRows = kThreads / kChunks;
    static_assert(kPassRows % 8 == 0 && kRows % kPassRows == 0 && kColumns % kPassRows == 0);
    const int copy_row = threadIdx.x / kChunks, copy_column = threadIdx.x % kChunks * 8;
    const int copy_to = copy_row * kDepth + PanelChunk<kDepth>(copy_row, threadIdx.x % kChunks) * 8;
    const T* x[kRows / kPassRows];
    const T* weight[kColumns / kPassRows];
#pragma unroll
    for (int i = 0; i < kRows / kPassRows; ++i) x[i] = row(copy_row + i * kPassRows);
#pragma unroll
    for (int i = 0; i < kColumns / kPassRows; ++i) weight[i] = column(copy_row + i * kPassRows);
    const int32_t steps = (k + kDepth - 1) / kDepth;
    const auto load = [&](int32_t step) {
      if (step < steps) {
        const int32_t at = step * kDepth + copy_column;
        const bool inside = at < k;
#pragma unroll
        for (int i = 0; i < kRows / kPassRows; ++i) {
          const bool valid = inside && x[i] != nullptr;
          CopyAsync16(&storage.x[step % kStages][copy_to + i * kPassRows * kDepth], valid ? x[i] + at : some, valid);
        }
#pragma unroll
        for (int i = 0; i < kColumns / kPassRows; ++i) {
          const bool valid = inside && weight[i] != nullptr;
          CopyAsync16(&storage.weight[step % kStages][copy_to + i * kPassRows * kDepth], valid ? weight[i] + at : some,
                      valid);
        }
      }
      CopyAsyncCommit();  // an empty group where there is nothing: they are counted
    };
#pragma unroll 1
    for (int32_t step = 0; step < kAhead; ++step) load(step);
    for (int32_t step = 0; step < steps; ++step) {
      CopyAsyncWait<kAhead - 1>();
      AnnounceToWarpgroups();
      WarpgroupWait<1>();  // the product before the last, whose place is loaded into
      __syncthreads();
      load(step + kAhead);
      if (step == max(0, steps - kAhead)) AdmitSuccessors();
      const uint32_t rows = SharedAddress(&storage.x[step % kStages][threadIdx.x / 128 * 64 * kDepth]);
      const uint32_t columns = SharedAddress(storage.weight[step % kStages]);
      WarpgroupArrive();
#pragma unroll
      for (int at = 0; at < kDepth; at += 16) {
#pragma unroll
        for (int n = 0; n < kWarpgroups; ++n) {
          WarpgroupMultiply<T, kPartColumns>(sum[n], PanelDescriptor<kDepth>(rows + at * 2),
                                             PanelDescriptor<kDepth>(columns + n * kPartColumns * kDepth * 2 + at * 2));
        }
      }
      WarpgroupCommit();
    }
    WarpgroupWait<0>();
#pragma unroll
    for (auto& part : sum) Pin(part);
    CopyAsyncWait<0>();
  }
};

// Lets a kernel have the shared memory of its tile.
inline constexpr auto AllowTile = []<class Tile>(auto kernel, const Tile&) {
  return AllowShared(kernel, Tile::kBytes);
};

}  // namespace beamline::kernels
