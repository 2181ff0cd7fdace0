// SPDX-License-Identifier: Apache-2.0
//
// The ranker's last layer on the device (ranker.h): the value of every candidate that a selection left, where it left
// them, so that it belongs to the search's graph. A warp for each candidate; its sums are fp32, in an order that
// depends on the width alone.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"
#include "beamline/kernels/ranker.h"

namespace beamline::kernels {

// Candidates stand as in DeviceBeams (beam_select_cuda.h), with the same number of slots for every request. A parent or
// a code outside of its table counts as 0. Matrices are 16-byte aligned, rows dense, fp32, bf16 or fp16 together.
struct RankBatch {
  DataType type = DataType::kFloat32;
  int32_t requests = 0;              // requests * slots, and requests * rows: 1..2^26
  int32_t slots = 0;                 // of each request
  int32_t rows = 0;                  // states of each request: the beams of the level before
  int32_t width = 0;                 // a multiple of 8, 8..kMaxRankerWidth
  int32_t heads = 0;                 // 1..kMaxRankerHeads
  int32_t code_rows = 0;             // of `code_table`, at least 1
  const void* states = nullptr;      // [requests * rows][width]
  const void* code_table = nullptr;  // [code_rows][width]
  const void* head = nullptr;        // [heads][width]
  const void* bias = nullptr;        // [heads]
  float weight[kMaxRankerHeads] = {};
  float score_weight = 0;
  const int32_t* count = nullptr;   // [requests], at most `slots` are looked at
  const int32_t* parent = nullptr;  // [requests * slots]
  const uint16_t* code = nullptr;   // [requests * slots]
  const float* score = nullptr;     // [requests * slots], finite
  float* value = nullptr;           // [requests * slots]; 0 at and beyond a request's count
};

LaunchError RankCandidatesCuda(const RankBatch& batch, CudaStream stream);

}  // namespace beamline::kernels
