// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/elementwise_cuda.h"
#include "cuda/launch.cuh"
#include "cuda/vector.cuh"

namespace beamline::kernels {
namespace {

constexpr int kThreads = 256;

// The first of the eight elements of this thread.
__device__ int64_t ElementOfGrid() { return (int64_t{blockIdx.x} * kThreads + threadIdx.x) * kVector; }

template <class T>
__global__ void __launch_bounds__(kThreads) Add(const __grid_constant__ AddArgs args) {
  AwaitPredecessors();
  const int64_t at = ElementOfGrid();
  if (at >= args.count) return;
  float x[kVector], y[kVector];
  LoadVector(static_cast<const T*>(args.x) + at, x);
  LoadVector(static_cast<const T*>(args.y) + at, y);
#pragma unroll
  for (int i = 0; i < kVector; ++i) x[i] += y[i];
  StoreVector(static_cast<T*>(args.out) + at, x);
}

template <class T>
__global__ void __launch_bounds__(kThreads) GatedSum(const __grid_constant__ GatedSumArgs args) {
  AwaitPredecessors();
  const int64_t at = ElementOfGrid();
  if (at >= args.rows * args.width) return;
  float trunk[kVector], gate[kVector], code[kVector], bias[kVector] = {};
  LoadVector(static_cast<const T*>(args.trunk) + at, trunk);
  LoadVector(args.gate + at, gate);
  LoadVector(static_cast<const T*>(args.code) + at, code);
  if (args.bias != nullptr) LoadVector(static_cast<const T*>(args.bias) + at % args.width, bias);
#pragma unroll
  for (int i = 0; i < kVector; ++i) trunk[i] += code[i] / (1.0f + expf(-(gate[i] + bias[i])));
  StoreVector(static_cast<T*>(args.out) + at, trunk);
}

template <class T>
__global__ void __launch_bounds__(kThreads) RepeatRows(const __grid_constant__ RepeatRowsArgs args) {
  AwaitPredecessors();
  const int64_t at = ElementOfGrid();
  if (at >= args.rows * args.width) return;
  const int64_t row = at / args.width;
  const int64_t from = args.first + row / args.repeat % args.period * args.step;
  float x[kVector];
  LoadVector(static_cast<const T*>(args.x) + from * args.width + at % args.width, x);
  StoreVector(static_cast<T*>(args.out) + at, x);
}

bool ValidCount(int64_t count) { return count >= kVector && count % kVector == 0 && count <= kMaxElements; }

bool ValidRows(int64_t rows, int32_t width) {
  return rows >= 1 && rows <= (int64_t{1} << 31) && width >= kVector && width <= kMaxRowWidth && width % kVector == 0 &&
         ValidCount(rows * width);
}

unsigned Blocks(int64_t count) { return static_cast<unsigned>((count / kVector + kThreads - 1) / kThreads); }

bool Usable(const void* array) { return array != nullptr && IsAligned(array); }

}  // namespace

LaunchError AddCuda(const AddArgs& args, CudaStream stream) {
  if (!ValidCount(args.count) || !Usable(args.x) || !Usable(args.y) || !Usable(args.out)) {
    return LaunchError::kInvalidArgument;
  }
  return WithType(args.type, [&]<class T>(T) { return Launch(Add<T>, {Blocks(args.count), kThreads}, stream, args); });
}

LaunchError GatedSumCuda(const GatedSumArgs& args, CudaStream stream) {
  if (!ValidRows(args.rows, args.width) || !Usable(args.trunk) || !Usable(args.gate) || !IsAligned(args.bias) ||
      !Usable(args.code) || !Usable(args.out)) {
    return LaunchError::kInvalidArgument;
  }
  return WithType(args.type, [&]<class T>(T) {
    return Launch(GatedSum<T>, {Blocks(args.rows * args.width), kThreads}, stream, args);
  });
}

LaunchError RepeatRowsCuda(const RepeatRowsArgs& args, CudaStream stream) {
  if (!ValidRows(args.rows, args.width) || args.repeat < 1 || args.period < 1 || args.step < 0 || args.first < 0 ||
      !Usable(args.x) || !Usable(args.out)) {
    return LaunchError::kInvalidArgument;
  }
  return WithType(args.type, [&]<class T>(T) {
    return Launch(RepeatRows<T>, {Blocks(args.rows * args.width), kThreads}, stream, args);
  });
}

}  // namespace beamline::kernels
