// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/rms_norm_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/row_block.cuh"

namespace beamline::kernels {
namespace {

// The row lives in registers: kVectors * kRowThreads * kVector >= width.
template <class T, int kVectors>
__global__ void __launch_bounds__(kRowThreads) RmsNorm(const __grid_constant__ RmsNormArgs args) {
  AwaitPredecessors();
  __shared__ float scratch[kRowWarps];
  const int64_t begin = int64_t{blockIdx.x} * args.width;
  const auto column = [](int v) { return (v * kRowThreads + static_cast<int>(threadIdx.x)) * kVector; };
  float x[kVectors][kVector] = {};
  float squares = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (column(v) >= args.width) continue;
    T* at = static_cast<T*>(args.x) + begin + column(v);
    LoadVector(at, x[v]);
    if (args.delta != nullptr) {
      float delta[kVector];
      LoadVector(static_cast<const T*>(args.delta) + begin + column(v), delta);
#pragma unroll
      for (int i = 0; i < kVector; ++i) x[v][i] = ToFloat(FromFloat<T>(x[v][i] + delta[i]));
      StoreVector(args.sum == nullptr ? at : static_cast<T*>(args.sum) + begin + column(v), x[v]);
    }
#pragma unroll
    for (int i = 0; i < kVector; ++i) squares += x[v][i] * x[v][i];
  }
  const float mean = BlockSum(squares, scratch) / static_cast<float>(args.width);
  const float scale = 1.0f / sqrtf(mean + args.epsilon);
  float largest = 0;
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (column(v) >= args.width) continue;
    float weight[kVector];
    LoadVector(static_cast<const T*>(args.weight) + column(v), weight);
#pragma unroll
    for (int i = 0; i < kVector; ++i) {
      x[v][i] = x[v][i] * scale * weight[i];
      largest = fmaxf(largest, fabsf(x[v][i]));
    }
    if (args.out != nullptr) StoreVector(static_cast<T*>(args.out) + begin + column(v), x[v]);
  }
  if (args.quantized == nullptr) return;
  const float row_scale = QuantizationScale(BlockMax(largest, scratch));
#pragma unroll
  for (int v = 0; v < kVectors; ++v) {
    if (column(v) < args.width) StoreQuantized(args.quantized + begin + column(v), x[v], row_scale);
  }
  if (threadIdx.x == 0) args.row_scale[blockIdx.x] = row_scale;
}

bool Valid(const RmsNormArgs& args) {
  if (args.rows < 1 || args.rows > 0x7fffffff) return false;
  if (args.width < 8 || args.width > kMaxNormWidth || args.width % 8 != 0) return false;
  if (args.x == nullptr || args.weight == nullptr || (args.out == nullptr && args.quantized == nullptr)) return false;
  if ((args.quantized == nullptr) != (args.row_scale == nullptr) || !(args.epsilon >= 0.0f)) return false;
  if (args.sum != nullptr && args.delta == nullptr) return false;
  // The residual stream would be lost under the result.
  if (args.out != nullptr && args.delta != nullptr && (args.out == args.x || args.out == args.sum)) return false;
  for (const void* array :
       {static_cast<const void*>(args.x), args.delta, args.weight, static_cast<const void*>(args.sum),
        static_cast<const void*>(args.out), static_cast<const void*>(args.quantized)}) {
    if (!IsAligned(array)) return false;
  }
  return AreNaturallyAligned(args.row_scale);
}

}  // namespace

LaunchError RmsNormCuda(const RmsNormArgs& args, CudaStream stream) {
  if (!Valid(args)) return LaunchError::kInvalidArgument;
  return WithType(args.type, [&]<class T>(T) {
    const auto launch = [&](auto kernel) {
      return Launch(kernel, {static_cast<unsigned>(args.rows), kRowThreads}, stream, args);
    };
    const int vectors = (args.width + kRowThreads * kVector - 1) / (kRowThreads * kVector);
    if (vectors <= 1) return launch(RmsNorm<T, 1>);
    if (vectors <= 2) return launch(RmsNorm<T, 2>);
    if (vectors <= 4) return launch(RmsNorm<T, 4>);
    return launch(RmsNorm<T, 16>);
  });
}

}  // namespace beamline::kernels
