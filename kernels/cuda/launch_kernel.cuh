// SPDX-License-Identifier: Apache-2.0
//
// The two things about a launch that only nvcc understands. The tests' emulator (tests/kernels/emulator) has its own
// version of this file and of mma.cuh, and runs every other line of the kernels on the host.
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

namespace beamline::kernels {

struct LaunchShape {
  dim3 grid;
  unsigned threads = 0;
  size_t shared_bytes = 0;  // of DynamicShared
};

template <class... Parameters, class... Arguments>
void Launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
            const Arguments&... arguments) {
  kernel<<<shape.grid, shape.threads, shape.shared_bytes, stream>>>(arguments...);
}

template <class T>
__device__ T* DynamicShared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
}

}  // namespace beamline::kernels
