// SPDX-License-Identifier: Apache-2.0
#include <atomic>
#include <cstdlib>

#include <cuda_runtime.h>

#include "beamline/kernels/programmatic_cuda.h"
#include "cuda/device_side.cuh"

namespace beamline::kernels {
namespace {

__global__ void Waits() { AwaitPredecessors(); }

// Whether the device runs code that waits for the kernel before (device_side.cuh: from 9.0 on). By what the runtime
// chose, which may be PTX of an older capability, compiled for a newer device.
bool KernelsWait() {
  cudaFuncAttributes chosen = {};
  if (cudaFuncGetAttributes(&chosen, Waits) == cudaSuccess) return chosen.ptxVersion >= 90;
  cudaGetLastError();  // no news of the first launch
  return false;
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
