// SPDX-License-Identifier: Apache-2.0
//
// launch_kernel.cuh of the emulator.
#pragma once

#include <cstddef>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

struct LaunchShape {
  dim3 grid;
  unsigned threads = 0;
  size_t shared_bytes = 0;
};

template <class... Parameters, class... Arguments>
LaunchError Launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   const Arguments&... arguments) {
  emulator::Enqueue(
      stream, [=] { emulator::Run(shape.grid, shape.threads, shape.shared_bytes, [&] { kernel(arguments...); }); });
  return LaunchError::kOk;
}

inline void AwaitPredecessors() { emulator::AwaitPredecessors(); }

template <class T>
T* DynamicShared() {
  return reinterpret_cast<T*>(emulator::DynamicSharedMemory());
}

}  // namespace beamline::kernels
