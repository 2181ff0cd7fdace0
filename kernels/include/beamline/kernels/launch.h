// SPDX-License-Identifier: Apache-2.0
//
// What every CUDA launcher shares. A launcher `<Op>Cuda(args, stream)` checks its arguments on the host, enqueues its
// kernels on `stream` and returns: it allocates nothing, waits for nothing, reads no device memory, and may be captured
// into a graph. Pointers are device memory unless a header says otherwise, and live until the stream has passed the
// launch. Sizes are capacities that shape the grid; true counts, where an op has them, are read from device memory.
//
// Every op computes a row from that row and its own request alone, in an order fixed by shapes that belong to the model
// or to the request: the same row gives the same bits whatever shares its batch.
//
// Thread-safe: no state is shared but how kernels are launched (programmatic_cuda.h). This header needs no CUDA.
#pragma once

#include <cstdint>

struct CUstream_st;  // NOLINT(readability-identifier-naming): what cudaStream_t points to

namespace beamline::kernels {

using CudaStream = CUstream_st*;

enum class LaunchError : int {
  kOk = 0,
  kInvalidArgument = 1,  // a size out of its limits, a null array, a misaligned array; nothing was enqueued
  kCuda = 2,             // the runtime refused the launch; cudaGetLastError() of this thread says why
};

// kE4M3 is what products take (quantize_cuda.h); the kernels' own arrays are of the others.
enum class DataType : int { kFloat32 = 0, kBFloat16 = 1, kFloat16 = 2, kE4M3 = 3 };

inline constexpr int64_t SizeOf(DataType type) {
  return type == DataType::kFloat32 ? 4 : type == DataType::kE4M3 ? 1 : 2;
}

// Rows of every matrix an op reads with vector loads begin at a multiple of this; elements of other arrays lie where
// their type asks for.
inline constexpr int64_t kAlignment = 16;

// Columns of rows, heads and tables come in whole vectors.
inline constexpr int32_t kWidthMultiple = 8;

// Columns of a row, where a header names no other limit of its op.
inline constexpr int32_t kMaxRowWidth = 1 << 20;

// Of attention.
inline constexpr int32_t kMaxHeads = 65535;
inline constexpr int32_t kMaxHeadDim = 256;

}  // namespace beamline::kernels
