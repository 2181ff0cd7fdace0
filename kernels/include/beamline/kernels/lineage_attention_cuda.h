// SPDX-License-Identifier: Apache-2.0
//
// Self-attention of a decode step's rows over the few steps before, on the device: row r of step t attends to its
// ancestor in each step s < t and to itself. Keys and values are written once, in step order, by whoever computes them
// (the fused QKV product of each step keeps its output) and are found through the lineage that BeamSelectCuda extends:
// nothing is moved or copied when beams are selected.
//
// Packing as in beam_select_cuda.h: at step 0 row b belongs to request b; later, rows are beam slots. A step is read
// with the keys and values of all steps up to its own. Or `rows_each` tells that step s has as many rows for each
// request, one request behind the other, all active. All arithmetic in fp32, steps in ascending order.
#pragma once

#include <cstdint>

#include "beamline/kernels/launch.h"
#include "beamline/kernels/trie_view.h"

namespace beamline::kernels {

inline constexpr int kMaxSteps = kMaxTrieLevels + 1;  // of a decode: an end token that is scored has one of its own

struct LineageAttentionBatch {
  DataType type = DataType::kFloat32;
  int32_t heads = 1;            // 1..kMaxHeads; rows * heads: at most 2^35 - 16
  int32_t key_value_heads = 1;  // divides heads
  int32_t head_dim = 0;         // multiple of 8, at most kMaxHeadDim
  float scale = 1;
  int32_t step = 0;                    // 0-based, below kMaxSteps
  int32_t requests = 0;                // 1..65535
  int32_t rows = 0;                    // capacity in slots, requests..2^26; at step 0 `requests` rows are computed
  int32_t rows_each[kMaxSteps] = {};   // per step up to `step`; 0: packed by row_begin and row_count
  const int32_t* row_begin = nullptr;  // [requests + 1]
  const int32_t* row_count = nullptr;  // [requests] active slots; others are neither read nor written. Unused at step 0
  const int32_t* lineage = nullptr;    // [step][rows] slot of the ancestor within the request. Unused at step 0
  const void* query = nullptr;         // [rows][query_step]
  int64_t query_step = 0;
  // Keys and values of steps 0..step; of step 0 [requests], of later ones [rows]. Steps are elements between rows,
  // multiples of 8; arrays are 16-byte aligned.
  const void* key[kMaxSteps] = {};
  const void* value[kMaxSteps] = {};
  int64_t key_value_step = 0;
  const float* bias = nullptr;  // [heads][kMaxSteps] by distance step - s, added to the scaled scores; or null
  void* out = nullptr;          // [rows][out_step]; may be `query`
  int64_t out_step = 0;
};

LaunchError LineageAttentionCuda(const LineageAttentionBatch& batch, CudaStream stream);

}  // namespace beamline::kernels
