// SPDX-License-Identifier: Apache-2.0
//
// How a kernel is launched.
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"
#include "beamline/kernels/programmatic_cuda.h"
#include "cuda/device_side.cuh"

namespace beamline::kernels {

struct LaunchShape {
  dim3 grid;
  unsigned threads = 0;
  size_t shared_bytes = 0;  // of DynamicShared
};

// By what the launch itself says: cudaGetLastError() would tell of any earlier call of this thread that failed.
template <class... Parameters, class... Arguments>
LaunchError Launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   const Arguments&... arguments) {
  cudaLaunchAttribute early[2] = {};
  early[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early[0].val.programmaticStreamSerializationAllowed = 1;
  // One split of every multiprocessor into cache and shared memory: where it differs from the kernel's before, a block
  // cannot come before that one's have gone.
  early[1].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  early[1].val.sharedMemCarveout = cudaSharedmemCarveoutMaxShared;
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = early;
  config.numAttrs = ProgrammaticLaunch() ? 2 : 0;
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, arguments...);
  return error == cudaSuccess ? LaunchError::kOk : LaunchError::kCuda;
}

}  // namespace beamline::kernels
