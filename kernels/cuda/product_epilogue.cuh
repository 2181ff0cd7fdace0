// SPDX-License-Identifier: Apache-2.0
//
// What becomes of the sums of product_cuda.h, and which arguments its launchers take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

#include "beamline/kernels/product_cuda.h"
#include "cuda/activation.cuh"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {

// Steps are rounded as written, as in the head's product: the compiler may not choose where to fuse them.
// REQUIRES: no gate. Where there is no such row or column the value is of no use.
template <class Out, int kValues>
__device__ inline void Finish(const ProductArgs& args, int64_t row, const int32_t (&column)[kValues],
                              float (&value)[kValues]) {
  const auto of_each = [&](auto f) {
#pragma unroll
    for (int i = 0; i < kValues; ++i) value[i] = f(column[i], value[i]);
  };
  const auto exists = [&](int32_t at) { return row < args.rows && at < args.n; };
  if (args.add) {
    const Out* out = static_cast<const Out*>(args.out) + row * args.out_step;
    of_each([&](int32_t at, float x) { return exists(at) ? __fmaf_rn(args.alpha, x, ToFloat(out[at])) : 0.0f; });
  } else {
    of_each([&](int32_t, float x) { return __fmul_rn(args.alpha, x); });
  }
  if (args.bias != nullptr) {
    const Out* bias = static_cast<const Out*>(args.bias);
    of_each([&](int32_t at, float x) { return exists(at) ? __fadd_rn(x, ToFloat(bias[at])) : 0.0f; });
  }
  if (args.relu) of_each([](int32_t, float x) { return Activate<ActivationKind::kRelu>(x); });
}

template <class T, ActivationKind kGate>
__device__ inline float Gated(const ProductArgs& args, float gate, float value) {
  const auto rounded = [&](float sum) { return ToFloat(FromFloat<T>(__fmul_rn(args.alpha, sum))); };
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

// Which gate a kernel has, if any: a type, so that a kernel is made for each.
struct NoGate {
  static constexpr bool kExists = false;
};
template <ActivationKind kKindOf>
struct ProductGate {
  static constexpr bool kExists = true;
  static constexpr ActivationKind kKind = kKindOf;
};

using ProductGateIndices = std::make_index_sequence<std::size(kProductGates)>;

// Calls f with the ProductGate of that kind.
template <class F, size_t... kIndex>
LaunchError WithGate(ActivationKind kind, F f, std::index_sequence<kIndex...>) {
  LaunchError error = LaunchError::kInvalidArgument;
  ((kind == kProductGates[kIndex] ? void(error = f(ProductGate<kProductGates[kIndex]>())) : void()), ...);
  return error;
}

// Calls f with values of the types of the matrices and of the result, and the gate.
template <class F>
LaunchError WithProductTypes(const ProductArgs& args, F f) {
  return WithType(args.type, [&]<class T>(T type) {
    if constexpr (__is_same(T, float)) {
      return LaunchError::kInvalidArgument;
    } else {
      const auto gated = [&](auto gate) { return f(type, type, gate); };
      if (args.gate) return WithGate(*args.gate, gated, ProductGateIndices());
      return args.out_type == DataType::kFloat32 ? f(type, float{}, NoGate()) : f(type, type, NoGate());
    }
  });
}

}  // namespace beamline::kernels
