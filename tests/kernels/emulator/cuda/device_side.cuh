// SPDX-License-Identifier: Apache-2.0
//
// device_side.cuh of the emulator.
#pragma once

#include <cuda_runtime.h>

namespace beamline::kernels {

inline void AwaitPredecessorsAlone() { emulator::AwaitPredecessors(); }
inline void AdmitSuccessors() { emulator::AdmitSuccessors(); }
inline void AwaitPredecessors() {
  AwaitPredecessorsAlone();
  AdmitSuccessors();
}
inline void PrefetchToCache(const void* from, uint32_t bytes) { emulator::PrefetchToCache(from, bytes); }

template <class T>
T* DynamicShared() {
  return reinterpret_cast<T*>(emulator::DynamicSharedMemory());
}

}  // namespace beamline::kernels
