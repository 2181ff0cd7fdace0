// SPDX-License-Identifier: Apache-2.0
//
// The grouped product by the matrix instructions of sm_90a (warpgroup_product.cu), for grouped_product.cu.
#pragma once

#include "beamline/kernels/moe_cuda.h"

namespace beamline::kernels {

// Whether it is asked for, there is a kernel for it, and a device that runs it.
bool TakesWarpgroups(const GroupedProductArgs& args);

// REQUIRES: valid arguments that TakesWarpgroups().
LaunchError WarpgroupProductCuda(const GroupedProductArgs& args, CudaStream stream);

// Asks for the shared memory of its kernels, where the device runs them.
LaunchError WarpgroupProductPrepare();

}  // namespace beamline::kernels
