// SPDX-License-Identifier: Apache-2.0
//
// What launchers ask the runtime for.
#pragma once

#include <cstddef>
#include <cstdlib>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"
#include "beamline/kernels/warpgroups_cuda.h"

namespace beamline::kernels {

// Of the thread's device; 0 where there is none.
inline int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  return cudaGetDevice(&device) == cudaSuccess && cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess
             ? value
             : 0;
}

// Whether the kernels with wgmma were compiled, the thread's device runs them, and nobody wants to go without.
inline bool HasWarpgroups() {
#if defined(BEAMLINE_SM90A) || defined(BEAMLINE_EMULATED)
  static const bool unwanted = [] {
    const char* wanted = std::getenv(kWarpgroupsSwitch);
    return wanted != nullptr && *wanted == '0';
  }();
  return !unwanted && DeviceAttribute(cudaDevAttrComputeCapabilityMajor) == 9;
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
