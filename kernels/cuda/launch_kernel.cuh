// SPDX-License-Identifier: Apache-2.0
//
// What a launch has that only nvcc understands. The tests' emulator (tests/kernels/emulator) has its own
// version of this file and of mma.cuh, and runs every other line of the kernels on the host.
#pragma once

#include <cstddef>
#include <cstdlib>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"

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

// The first statement of every kernel, of every thread: before it nothing that an earlier kernel of the stream wrote
// may be read, and nothing written that one may still read. As every kernel waits for the whole of the one before, what
// is older is complete, too. Then the next kernel may send its blocks.
__device__ inline void AwaitPredecessors() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

template <class T>
__device__ T* DynamicShared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
}

}  // namespace beamline::kernels
