// SPDX-License-Identifier: Apache-2.0
//
// The head of a decode step on the device: logits, and of each row what the selection's log-sum-exp needs of them
// (RowPart), made while they are still in registers. By wgmma alone. Rows do not depend on each other.
#pragma once

#include <cstdint>

#include "beamline/kernels/beam_select_cuda.h"
#include "beamline/kernels/launch.h"

namespace beamline::kernels {

// logits = scale * x weight + bias, sums in fp32. Matrices are 16-byte aligned, and their rows.
struct HeadProductArgs {
  DataType type = DataType::kBFloat16;  // of x and weight: bf16 or fp16
  int32_t rows = 0;                     // 1..4,194,240
  int32_t vocab = 0;                    // 1..kMaxVocabulary
  int32_t k = 0;                        // multiple of 8, at most kMaxRowWidth
  const void* x = nullptr;              // [rows][x_step]
  int64_t x_step = 0;                   // multiple of 8, at least k
  const void* weight = nullptr;         // [vocab][k]
  const float* bias = nullptr;          // [vocab] or null
  float scale = 1;
  float* logits = nullptr;   // [rows][ld]; columns from vocab on are not written
  int64_t ld = 0;            // multiple of 4, at least vocab
  RowPart* parts = nullptr;  // [rows][RowParts(vocab)]
};

// After PrepareWarpgroups() (warpgroups_cuda.h); kInvalidArgument where that finds no device.
LaunchError HeadProductCuda(const HeadProductArgs& args, CudaStream stream);

}  // namespace beamline::kernels
