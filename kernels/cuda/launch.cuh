// SPDX-License-Identifier: Apache-2.0
//
// What every launcher does before and after its kernels.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"

namespace beamline::kernels {

inline bool IsAligned(const void* p, int64_t bytes = kAlignment) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

inline bool ValidSelectSizes(int32_t requests, int32_t rows) {
  return requests >= 1 && requests <= 65535 && rows >= requests && rows <= (1 << 26);
}

inline LaunchError Launched() { return cudaGetLastError() == cudaSuccess ? LaunchError::kOk : LaunchError::kCuda; }

}  // namespace beamline::kernels
