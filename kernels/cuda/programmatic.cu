// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdlib>

#include "beamline/kernels/programmatic_cuda.h"
#include "cuda/device_attribute.cuh"

namespace beamline::kernels {
namespace {

std::atomic<bool>& Launches() {
  static std::atomic<bool> programmatic = [] {
    const char* wanted = std::getenv(kProgrammaticSwitch);
    return (wanted == nullptr || *wanted != '0') && DeviceAttribute(cudaDevAttrComputeCapabilityMajor) >= 9;
  }();
  return programmatic;
}

}  // namespace

bool ProgrammaticLaunch() { return Launches().load(std::memory_order_relaxed); }

void LeaveProgrammaticLaunch() { Launches().store(false, std::memory_order_relaxed); }

}  // namespace beamline::kernels
