// SPDX-License-Identifier: Apache-2.0
//
// What every launcher does before its kernels.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"
#include "cuda/launch_kernel.cuh"

namespace beamline::kernels {

inline bool IsAligned(const void* p, int64_t bytes = kAlignment) {
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

// Arrays that are read element by element lie where an element may; null does.
template <class... T>
bool AreNaturallyAligned(const T*... arrays) {
  return (IsAligned(arrays, alignof(T)) && ...);
}

inline bool ValidSelectSizes(int32_t requests, int32_t rows) {
  return requests >= 1 && requests <= 65535 && rows >= requests && rows <= (1 << 26);
}

// Calls f with a value of the C++ type that `type` names.
template <class F>
LaunchError WithType(DataType type, F f) {
  switch (type) {
    case DataType::kFloat32:
      return f(float{});
    case DataType::kBFloat16:
      return f(__nv_bfloat16{});
    case DataType::kFloat16:
      return f(__half{});
    case DataType::kE4M3:
      break;
  }
  return LaunchError::kInvalidArgument;
}

}  // namespace beamline::kernels
