// SPDX-License-Identifier: Apache-2.0
//
// A product's weight is no kernel's result: its way from memory can begin while the kernel before still drains, whose
// rows it is then multiplied with (programmatic dependent launch; CUTLASS has it as example 63, GEMM with L2 weight
// prefetch).
#pragma once

#include <cstdint>

#include "cuda/device_side.cuh"

namespace beamline::kernels {

// Of a row: what memory delivers of all rows of a large weight, some 8 MB, in the 2 us of a launch and a drain. With
// more of it the first steps' loads would wait behind what the last ones need.
inline constexpr uint32_t kPrefetchBytes = 1024;

// The beginnings of the kRows rows of the weight, k values each, that this block of kThreads multiplies with: row(i),
// or null. Of blocks that share them one asks. Before AwaitPredecessorsAlone().
template <int kRows, int kThreads, class RowOf>
__device__ void PrefetchRows(RowOf row, int32_t k) {
  static_assert(kRows <= kThreads);
  // A warp asks for one row at a time (the instruction's operands are the whole warp's): all of them share the rows.
  const int i = static_cast<int>(threadIdx.x % 32 * (kThreads / 32) + threadIdx.x / 32);
  if (blockIdx.y > 0 || i >= kRows) return;
  const auto* const from = row(i);
  if (from == nullptr) return;
  PrefetchToCache(from, min(kPrefetchBytes, static_cast<uint32_t>(k) * static_cast<uint32_t>(sizeof(*from))));
}

}  // namespace beamline::kernels
