// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/warpgroups_cuda.h"
#include "cuda/device_attribute.cuh"
#include "cuda/warpgroups.cuh"

namespace beamline::kernels {

LaunchError PrepareWarpgroups() {
  if (!HasWarpgroups()) return LaunchError::kInvalidArgument;
  for (const auto prepare :
       {WarpgroupAttentionPrepare, WarpgroupProductPrepare, WarpgroupHeadPrepare, DenseProductPrepare}) {
    if (const LaunchError error = prepare(); error != LaunchError::kOk) return error;
  }
  return LaunchError::kOk;
}

}  // namespace beamline::kernels
