// SPDX-License-Identifier: Apache-2.0
//
// What every kernel has that only nvcc understands. The tests' emulator (tests/kernels/emulator) has its own version of
// this file and of mma.cuh, and runs every other line of the kernels on the host.
#pragma once

#include <cuda_runtime.h>

namespace beamline::kernels {

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
