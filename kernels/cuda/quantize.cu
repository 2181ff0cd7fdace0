// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/quantize_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/row_block.cuh"

namespace beamline::kernels {
namespace {

template <class T>
__global__ void __launch_bounds__(kRowThreads) QuantizeRows(const __grid_constant__ QuantizeRowsArgs args) {
  AwaitPredecessors();
  __shared__ float scratch[kRowWarps];
  const T* from = static_cast<const T*>(args.x) + int64_t{blockIdx.x} * args.x_step;
  const int32_t first = threadIdx.x * kVector, step = kRowThreads * kVector;
  float x[kVector];
  float largest = 0;
  for (int32_t column = first; column < args.width; column += step) {
    LoadVector(from + column, x);
#pragma unroll
    for (float value : x) largest = fmaxf(largest, fabsf(value));
  }
  const float row_scale = QuantizationScale(BlockMax(largest, scratch));
  for (int32_t column = first; column < args.width; column += step) {
    LoadVector(from + column, x);  // from the cache
    StoreQuantized(args.quantized + int64_t{blockIdx.x} * args.width + column, x, row_scale);
  }
  if (threadIdx.x == 0) args.row_scale[blockIdx.x] = row_scale;
}

template <class T>
__global__ void __launch_bounds__(kRowThreads) ScaleProduct(const __grid_constant__ ScaleProductArgs args) {
  AwaitPredecessors();
  const int64_t row = blockIdx.x;
  const float row_scale = args.row_scale[row];
  for (int32_t column = threadIdx.x * kVector; column < args.width; column += kRowThreads * kVector) {
    float x[kVector], scale[kVector];
    LoadVector(args.x + row * args.width + column, x);
    LoadVector(args.column_scale + column, scale);
#pragma unroll
    for (int i = 0; i < kVector; ++i) x[i] = x[i] * row_scale * scale[i];
    StoreVector(static_cast<T*>(args.out) + row * args.out_step + column, x);
  }
}

bool ValidRows(int64_t rows, int32_t width) {
  return rows >= 1 && rows <= 0x7fffffff && width >= 8 && width <= kMaxRowWidth && width % 8 == 0;
}

bool Valid(const QuantizeRowsArgs& args) {
  if (!ValidRows(args.rows, args.width) || args.x_step < args.width) return false;
  if (args.x_step % (kAlignment / SizeOf(args.type)) != 0) return false;
  if (args.x == nullptr || args.quantized == nullptr || args.row_scale == nullptr) return false;
  return IsAligned(args.x) && IsAligned(args.quantized) && AreNaturallyAligned(args.row_scale);
}

bool Valid(const ScaleProductArgs& args) {
  if (!ValidRows(args.rows, args.width) || args.out_step < args.width || args.out_step % 8 != 0) return false;
  if (args.x == nullptr || args.row_scale == nullptr || args.column_scale == nullptr || args.out == nullptr)
    return false;
  return IsAligned(args.x) && IsAligned(args.column_scale) && IsAligned(args.out) &&
         AreNaturallyAligned(args.row_scale);
}

}  // namespace

LaunchError QuantizeRowsCuda(const QuantizeRowsArgs& args, CudaStream stream) {
  if (!Valid(args)) return LaunchError::kInvalidArgument;
  return WithType(args.type, [&]<class T>(T) {
    return Launch(QuantizeRows<T>, {static_cast<unsigned>(args.rows), kRowThreads}, stream, args);
  });
}

LaunchError ScaleProductCuda(const ScaleProductArgs& args, CudaStream stream) {
  if (!Valid(args)) return LaunchError::kInvalidArgument;
  return WithType(args.type, [&]<class T>(T) {
    return Launch(ScaleProduct<T>, {static_cast<unsigned>(args.rows), kRowThreads}, stream, args);
  });
}

}  // namespace beamline::kernels
