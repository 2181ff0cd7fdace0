// SPDX-License-Identifier: Apache-2.0
//
// What launchers ask the runtime for.
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

// Of the thread's device; 0 where there is none.
inline int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  return cudaGetDevice(&device) == cudaSuccess && cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess
             ? value
             : 0;
}

// Whether the kernels with wgmma were compiled, and the thread's device runs them.
inline bool HasWarpgroups() {
#if defined(BEAMLINE_SM90A) || defined(BEAMLINE_EMULATED)
  return DeviceAttribute(cudaDevAttrComputeCapabilityMajor) == 9;
#else
  return false;
#endif
}

// Lets a kernel have so much dynamic shared memory.
inline constexpr auto AllowShared = [](auto kernel, size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)) ==
                 cudaSuccess
             ? LaunchError::kOk
             : LaunchError::kCuda;
};

}  // namespace beamline::kernels
