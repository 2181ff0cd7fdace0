// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/activation_cuda.h"
#include "cuda/activation.cuh"
#include "cuda/launch.cuh"
#include "cuda/row_block.cuh"

namespace beamline::kernels {
namespace {

template <class T, ActivationKind kKind>
__device__ void Column(const ActivationArgs& args, int64_t row, int32_t column, float (&y)[kVector]) {
  const T* from = static_cast<const T*>(args.x) + row * args.width * (args.gated ? 2 : 1) + column;
  LoadVector(from, y);
#pragma unroll
  for (float& value : y) value = Activate<kKind>(value);
  if (!args.gated) return;
  float value[kVector];
  LoadVector(from + args.width, value);
#pragma unroll
  for (int i = 0; i < kVector; ++i) y[i] *= value[i];
}

template <class T, ActivationKind kKind>
__global__ void __launch_bounds__(kRowThreads) Activation(const __grid_constant__ ActivationArgs args) {
  AwaitPredecessors();
  __shared__ float scratch[kRowWarps];
  const int64_t row = blockIdx.x;
  const int32_t first = threadIdx.x * kVector, step = kRowThreads * kVector;
  float y[kVector];
  float largest = 0;
  for (int32_t column = first; column < args.width; column += step) {
    Column<T, kKind>(args, row, column, y);
#pragma unroll
    for (float value : y) largest = fmaxf(largest, fabsf(value));
    // Where x is overwritten nothing is quantised below.
    if (args.out != nullptr) StoreVector(static_cast<T*>(args.out) + row * args.width + column, y);
  }
  if (args.quantized == nullptr) return;
  const float row_scale = QuantizationScale(BlockMax(largest, scratch));
  for (int32_t column = first; column < args.width; column += step) {
    Column<T, kKind>(args, row, column, y);
    StoreQuantized(args.quantized + row * args.width + column, y, row_scale);
  }
  if (threadIdx.x == 0) args.row_scale[row] = row_scale;
}

bool Valid(const ActivationArgs& args) {
  if (args.rows < 1 || args.rows > 0x7fffffff) return false;
  if (args.width < 8 || args.width > kMaxRowWidth || args.width % 8 != 0) return false;
  if (args.x == nullptr || (args.out == nullptr && args.quantized == nullptr)) return false;
  if ((args.quantized == nullptr) != (args.row_scale == nullptr)) return false;
  if (args.out == args.x && (args.gated || args.quantized != nullptr)) return false;
  return IsAligned(args.x) && IsAligned(args.out) && IsAligned(args.quantized) && AreNaturallyAligned(args.row_scale);
}

}  // namespace

LaunchError ActivationCuda(const ActivationArgs& args, CudaStream stream) {
  if (!Valid(args)) return LaunchError::kInvalidArgument;
  return WithType(args.type, [&]<class T>(T) {
    const auto launch = [&](auto kernel) {
      return Launch(kernel, {static_cast<unsigned>(args.rows), kRowThreads}, stream, args);
    };
    switch (args.kind) {
      case ActivationKind::kSilu:
        return launch(Activation<T, ActivationKind::kSilu>);
      case ActivationKind::kRelu:
        return launch(Activation<T, ActivationKind::kRelu>);
      case ActivationKind::kGelu:
        return launch(Activation<T, ActivationKind::kGelu>);
      case ActivationKind::kGeluTanh:
        return launch(Activation<T, ActivationKind::kGeluTanh>);
      case ActivationKind::kLeakyRelu:
        return launch(Activation<T, ActivationKind::kLeakyRelu>);
    }
    return LaunchError::kInvalidArgument;
  });
}

}  // namespace beamline::kernels
