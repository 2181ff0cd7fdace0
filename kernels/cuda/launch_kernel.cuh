// SPDX-License-Identifier: Apache-2.0
//
// How a kernel is launched.
#pragma once

#include <cstddef>
#include <cstdlib>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"
#include "cuda/device_side.cuh"

namespace beamline::kernels {

struct LaunchShape {
  dim3 grid;
  unsigned threads = 0;
  size_t shared_bytes = 0;  // of DynamicShared
};

// Programmatic dependent launch: a kernel's blocks come to the multiprocessors while the one before still works, and
// hide the launch and the drain between two kernels of a stream. Off until it is measured;
// BEAMLINE_PROGRAMMATIC_LAUNCH=1 is the experiment's switch. Devices before sm_90 have none.
inline bool ProgrammaticLaunch() {
  static const bool on = [] {
    const char* wanted = std::getenv("BEAMLINE_PROGRAMMATIC_LAUNCH");
    int device = 0, major = 0;
    return wanted != nullptr && *wanted == '1' && cudaGetDevice(&device) == cudaSuccess &&
           cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess && major >= 9;
  }();
  return on;
}

// By what the launch itself says: cudaGetLastError() would tell of any earlier call of this thread that failed.
template <class... Parameters, class... Arguments>
LaunchError Launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   const Arguments&... arguments) {
  cudaLaunchAttribute programmatic = {};
  programmatic.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  programmatic.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = &programmatic;
  config.numAttrs = ProgrammaticLaunch() ? 1 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  return error == cudaSuccess ? LaunchError::kOk : LaunchError::kCuda;
}

}  // namespace beamline::kernels
