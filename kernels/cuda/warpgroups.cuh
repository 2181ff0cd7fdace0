// SPDX-License-Identifier: Apache-2.0
//
// The kernels by the matrix instructions of sm_90a, for the launchers that choose between them and portable ones.
#pragma once

#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/moe_cuda.h"

namespace beamline::kernels {

// Whether it is asked for, there is a kernel for it, and a device that runs it.
bool TakesWarpgroups(const AttentionBatch& batch);
bool TakesWarpgroups(const GroupedProductArgs& args);

// REQUIRES: valid arguments that TakesWarpgroups().
LaunchError WarpgroupAttentionCuda(const AttentionBatch& batch, CudaStream stream);
LaunchError WarpgroupProductCuda(const GroupedProductArgs& args, CudaStream stream);

// Ask for the shared memory of their kernels. REQUIRES: HasWarpgroups().
LaunchError WarpgroupAttentionPrepare();
LaunchError WarpgroupProductPrepare();
LaunchError WarpgroupHeadPrepare();
LaunchError DenseProductPrepare();

}  // namespace beamline::kernels
