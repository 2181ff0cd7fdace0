// SPDX-License-Identifier: Apache-2.0
//
// What every kernel has that only nvcc understands. The tests' emulator (tests/kernels/emulator) has its own version of
// this file and of mma.cuh, and runs every other line of the kernels on the host.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

namespace beamline::kernels {

// What every thread of every kernel begins with: before it nothing that an earlier kernel of the stream wrote may be
// read, and nothing written that one may still read. As every kernel waits for the whole of the one before, and admits
// the next one only then, what is older is complete, too.
__device__ inline void AwaitPredecessorsAlone() {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
// The next kernel may send its blocks, which wait: when all of this one's have said so, or ended. Long kernels do it
// when they have no more to load: until then blocks that only wait would keep those of other streams away, and what
// they prefetch would hold up what this one reads.
__device__ inline void AdmitSuccessors() {
#if __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}
// Of all others.
__device__ inline void AwaitPredecessors() {
  AwaitPredecessorsAlone();
  AdmitSuccessors();
}

// A hint, and no reading: alone of all things it may come before that wait. From there the second-level cache
// fetches a weight's bytes while the kernel before drains. `from` and `bytes` are multiples of 16.
__device__ inline void PrefetchToCache(const void* from, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;\n" ::"l"(__cvta_generic_to_global(from)), "r"(bytes));
#endif
}

template <class T>
__device__ T* DynamicShared() {
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
}

}  // namespace beamline::kernels
