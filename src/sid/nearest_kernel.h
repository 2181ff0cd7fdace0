// SPDX-License-Identifier: Apache-2.0
//
// The inner loop of nearest-code search, which each nearest_<instruction set>.cc compiles with its own flags. Scores
// are bias_c + sum_d x_d * packed_{d,c}, summed in the order of d in every lane, so that all builds give the same bits.
// A tile of kTile points against one machine vector of codes is summed in registers: six sums are as many as hide the
// latency of an addition. Nothing here allocates; thread-safe.
#pragma once

#include <cstdint>

namespace beamline::sid {

inline constexpr int kLanes = 16;  // codes per block
inline constexpr int kTile = 6;    // points per tile

struct alignas(64) LaneFloats {
  float values[kLanes];
};
struct alignas(64) LaneCodes {
  int32_t values[kLanes];
};

// Blocks [block_begin, block_end) of codes: packed [block][dim] of lanes, bias [block] of lanes.
struct CodeBlocks {
  const LaneFloats* packed;
  const LaneFloats* bias;
  int64_t dim;
  int64_t block_begin;
  int64_t block_end;
};

struct NearestKernels {
  // points [kTile, dim]; best and best_block [kTile] of lanes, updated where a block's score is strictly lower.
  void (*nearest)(const CodeBlocks& blocks, const float* points, LaneFloats* best, LaneCodes* best_block);
  // One point; out [block_end - block_begin] of lanes.
  void (*scores)(const CodeBlocks& blocks, const float* point, LaneFloats* out);
};

const NearestKernels& GenericKernels();
// x86 only; REQUIRES: the CPU has the instruction set.
const NearestKernels& Avx2Kernels();
const NearestKernels& Avx512Kernels();

}  // namespace beamline::sid
