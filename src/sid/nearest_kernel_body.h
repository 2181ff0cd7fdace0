// SPDX-License-Identifier: Apache-2.0
//
// The bodies behind nearest_kernel.h; included by the nearest_<instruction set>.cc files only, each of which gets its
// own copy through the unnamed namespace. A block's lanes are worked on one machine vector at a time: wider vector
// types than the machine's would live in memory.
#pragma once

#include "sid/nearest_kernel.h"

namespace beamline::sid {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
#else
constexpr int kVectorBytes = 16;
#endif
typedef float FloatVector __attribute__((vector_size(kVectorBytes), may_alias));
typedef int32_t IndexVector __attribute__((vector_size(kVectorBytes), may_alias));
constexpr int kParts = sizeof(LaneFloats) / kVectorBytes;

inline const FloatVector* Parts(const LaneFloats& lanes) { return reinterpret_cast<const FloatVector*>(&lanes); }
inline FloatVector* Parts(LaneFloats& lanes) { return reinterpret_cast<FloatVector*>(&lanes); }
inline IndexVector* Parts(LaneCodes& lanes) { return reinterpret_cast<IndexVector*>(&lanes); }

void NearestBody(const CodeBlocks& blocks, const float* points, LaneFloats* best, LaneCodes* best_block) {
  const int64_t dim = blocks.dim;
  for (int64_t block = blocks.block_begin; block < blocks.block_end; ++block) {
    const IndexVector here = IndexVector{} + static_cast<int32_t>(block);
    for (int part = 0; part < kParts; ++part) {
      const FloatVector* packed = Parts(blocks.packed[block * dim]) + part;
      FloatVector sum[kTile];
      for (int p = 0; p < kTile; ++p) sum[p] = Parts(blocks.bias[block])[part];
      for (int64_t d = 0; d < dim; ++d) {
        const FloatVector codes = packed[d * kParts];
        for (int p = 0; p < kTile; ++p) sum[p] += points[p * dim + d] * codes;
      }
      for (int p = 0; p < kTile; ++p) {
        FloatVector& best_value = Parts(best[p])[part];
        IndexVector& best_index = Parts(best_block[p])[part];
        const IndexVector lower = sum[p] < best_value;
        best_value = lower ? sum[p] : best_value;
        best_index = lower ? here : best_index;
      }
    }
  }
}

void ScoresBody(const CodeBlocks& blocks, const float* point, LaneFloats* out) {
  for (int64_t block = blocks.block_begin; block < blocks.block_end; ++block, ++out) {
    for (int part = 0; part < kParts; ++part) {
      const FloatVector* packed = Parts(blocks.packed[block * blocks.dim]) + part;
      FloatVector sum = Parts(blocks.bias[block])[part];
      for (int64_t d = 0; d < blocks.dim; ++d) sum += point[d] * packed[d * kParts];
      Parts(*out)[part] = sum;
    }
  }
}

}  // namespace
}  // namespace beamline::sid
