// SPDX-License-Identifier: Apache-2.0
//
// What becomes of the sums of product_cuda.h, and which arguments its launchers take.
#pragma once

#include <cstdint>

#include "beamline/kernels/product_cuda.h"
#include "cuda/activation.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {

// REQUIRES: a row and a column that exist; no gate.
template <class Out>
__device__ inline float Finished(const ProductArgs& args, int64_t row, int32_t column, float sum) {
  float value = args.scale * sum;
  if (args.add) value += ToFloat(static_cast<const Out*>(args.out)[row * args.out_step + column]);
  if (args.bias != nullptr) value += ToFloat(static_cast<const Out*>(args.bias)[column]);
  if (args.relu) value = Activate<ActivationKind::kRelu>(value);
  return value;
}

template <class T, ActivationKind kGate>
__device__ inline float Gated(const ProductArgs& args, float gate, float value) {
  const auto rounded = [&](float sum) { return ToFloat(FromFloat<T>(args.scale * sum)); };
  return Activate<kGate>(rounded(gate)) * rounded(value);
}

inline int32_t ResultColumns(const ProductArgs& args) { return args.gate ? args.n / 2 : args.n; }

inline bool ValidProduct(const ProductArgs& args, int32_t most_rows) {
  constexpr int32_t kChunk = 8;  // elements of 16 bytes
  if (args.type != DataType::kBFloat16 && args.type != DataType::kFloat16) return false;
  if (args.out_type != args.type && args.out_type != DataType::kFloat32) return false;
  if (args.rows < 1 || args.rows > most_rows || args.n < 1 || args.k < kChunk || args.k % kChunk != 0) return false;
  if (args.x_step < args.k || args.weight_step < args.k || args.out_step < ResultColumns(args)) return false;
  if (args.x_step % kChunk != 0 || args.weight_step % kChunk != 0) return false;
  if (args.x == nullptr || args.weight == nullptr || args.out == nullptr) return false;
  if (args.n > (1 << 30) || args.k > (1 << 30)) return false;
  if (args.gate && (!IsProductGate(*args.gate) || args.n % 16 != 0 || args.out_type != args.type || args.add ||
                    args.relu || args.bias != nullptr)) {
    return false;
  }
  const int64_t element = SizeOf(args.out_type);
  return IsAligned(args.x) && IsAligned(args.weight) && IsAligned(args.out, element) && IsAligned(args.bias, element);
}

// Which gate a kernel has: a type, so that a kernel is made for each.
struct NoGate {
  static constexpr bool kIs = false;
};
template <ActivationKind kKindOf>
struct Gate {
  static constexpr bool kIs = true;
  static constexpr ActivationKind kKind = kKindOf;
};

// Calls f with values of the types of the matrices and of the result, and the gate.
template <class F>
LaunchError WithProductTypes(const ProductArgs& args, F f) {
  return WithType(args.type, [&]<class T>(T type) {
    if constexpr (__is_same(T, float)) {
      return LaunchError::kInvalidArgument;
    } else {
      if (!args.gate) return args.out_type == DataType::kFloat32 ? f(type, float{}, NoGate()) : f(type, type, NoGate());
      switch (*args.gate) {
        case ActivationKind::kSilu:
          return f(type, type, Gate<ActivationKind::kSilu>());
        case ActivationKind::kGeluTanh:
          return f(type, type, Gate<ActivationKind::kGeluTanh>());
        default:  // no IsProductGate
          return LaunchError::kInvalidArgument;
      }
    }
  });
}

}  // namespace beamline::kernels
