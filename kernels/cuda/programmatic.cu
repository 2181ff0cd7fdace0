// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "beamline/kernels/programmatic_cuda.h"
#include "cuda/device_attribute.cuh"

namespace beamline::kernels {
namespace {

// The capabilities that there is code for: from 9.0 on it waits for the kernel before (device_side.cuh). A device runs
// what was made for the newest that is not newer than itself.
#if defined(BEAMLINE_EMULATED)
constexpr int kArchitectures[] = {900};
#else
constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};
#endif
bool KernelsWait() {
  const int device = 100 * DeviceAttribute(cudaDevAttrComputeCapabilityMajor) +
                     10 * DeviceAttribute(cudaDevAttrComputeCapabilityMinor);
  int newest = 0;
  for (const int architecture : kArchitectures) {
    if (architecture <= device) newest = std::max(newest, architecture);
  }
  return newest >= 900;
}

std::atomic<bool>& Launches() {
  static std::atomic<bool> programmatic = [] {
    const char* wanted = std::getenv(kProgrammaticSwitch);
    return (wanted == nullptr || *wanted != '0') && KernelsWait();
  }();
  return programmatic;
}

}  // namespace

bool ProgrammaticLaunch() { return Launches().load(std::memory_order_relaxed); }

void LeaveProgrammaticLaunch() { Launches().store(false, std::memory_order_relaxed); }

}  // namespace beamline::kernels
