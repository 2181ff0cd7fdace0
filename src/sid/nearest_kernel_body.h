// SPDX-License-Identifier: Apache-2.0
//
// The bodies behind nearest_kernel.h; included by the nearest_<instruction set>.cc files only, each of which gets its
// own copy through the unnamed namespace.
#pragma once

#include "sid/nearest_kernel.h"

namespace beamline::sid {
namespace {

// Sixteen lanes whatever the machine has: the compiler splits them into its own registers.
typedef float LaneVector __attribute__((vector_size(64)));
typedef int32_t LaneIndex __attribute__((vector_size(64)));

inline const LaneVector& Load(const LaneFloats& lanes) { return reinterpret_cast<const LaneVector&>(lanes); }

void NearestBody(const CodeBlocks& blocks, const float* points, LaneFloats* best, LaneCodes* best_block) {
  const int64_t dim = blocks.dim;
  for (int64_t block = blocks.block_begin; block < blocks.block_end; ++block) {
    const LaneFloats* packed = blocks.packed + block * dim;
    LaneVector sum[kTile];
    for (int p = 0; p < kTile; ++p) sum[p] = Load(blocks.bias[block]);
    for (int64_t d = 0; d < dim; ++d) {
      const LaneVector codes = Load(packed[d]);
      for (int p = 0; p < kTile; ++p) sum[p] += points[p * dim + d] * codes;
    }
    for (int p = 0; p < kTile; ++p) {
      auto& best_value = reinterpret_cast<LaneVector&>(best[p]);
      auto& best_index = reinterpret_cast<LaneIndex&>(best_block[p]);
      const LaneIndex lower = sum[p] < best_value;
      best_value = lower ? sum[p] : best_value;
      const LaneIndex here = LaneIndex{} + static_cast<int32_t>(block);
      best_index = lower ? here : best_index;
    }
  }
}

void ScoresBody(const CodeBlocks& blocks, const float* point, LaneFloats* out) {
  for (int64_t block = blocks.block_begin; block < blocks.block_end; ++block) {
    const LaneFloats* packed = blocks.packed + block * blocks.dim;
    LaneVector sum = Load(blocks.bias[block]);
    for (int64_t d = 0; d < blocks.dim; ++d) sum += point[d] * Load(packed[d]);
    reinterpret_cast<LaneVector&>(*out++) = sum;
  }
}

}  // namespace
}  // namespace beamline::sid
