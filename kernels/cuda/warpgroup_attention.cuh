// SPDX-License-Identifier: Apache-2.0
//
// Attention by the matrix instructions of sm_90a (warpgroup_attention.cu), for attention.cu.
#pragma once

#include "beamline/kernels/attention_cuda.h"

namespace beamline::kernels {

// Whether it is asked for, there is a kernel for it, and a device that runs it.
bool TakesWarpgroups(const AttentionBatch& batch);

// REQUIRES: a valid batch that TakesWarpgroups().
LaunchError WarpgroupAttentionCuda(const AttentionBatch& batch, CudaStream stream);

// Asks for the shared memory of all its kernels, where the device runs them.
LaunchError WarpgroupAttentionPrepare();

}  // namespace beamline::kernels
