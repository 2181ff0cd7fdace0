// SPDX-License-Identifier: Apache-2.0
//
// mma.cuh of the emulator: what the PTX manual says of cp.async, ldmatrix and mma.m16n8k16.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

namespace beamline::kernels {

inline uint32_t SharedAddress(const void* p) { return emulator::SharedAddress(p); }
inline void CopyAsync16(void* to, const void* from, bool valid) { emulator::QueueCopy(to, valid ? from : nullptr); }
inline void CopyAsync4(void* to, const void* from) { emulator::QueueCopy(to, from, 4); }
inline void CopyAsyncCommit() { emulator::CommitCopies(); }
template <int kPending>
void CopyAsyncWait() {
  emulator::WaitForCopies(kPending);
}

// Lane l names row l % 8 of matrix l / 8, and gets of each matrix the pair of columns 2 (l % 4) of row l / 4.
inline void LoadMatrix4(uint32_t (&r)[4], const void* row) {
  const unsigned lane = emulated_lane();
  emulator::Exchange(0xffffffffu, &row, sizeof(row));
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    const char* from;
    std::memcpy(&from, emulator::Lane(matrix * 8 + lane / 4), sizeof(from));
    if (reinterpret_cast<uintptr_t>(from) % 16 != 0) std::abort();
    std::memcpy(&r[matrix], from + lane % 4 * 4, sizeof(r[matrix]));
  }
}

// The pair of rows 2 (l % 4) of column l / 4.
inline void LoadMatrix4Transposed(uint32_t (&r)[4], const void* row) {
  const unsigned lane = emulated_lane();
  emulator::Exchange(0xffffffffu, &row, sizeof(row));
  for (unsigned matrix = 0; matrix < 4; ++matrix) {
    uint16_t pair[2];
    for (unsigned i = 0; i < 2; ++i) {
      const char* from;
      std::memcpy(&from, emulator::Lane(matrix * 8 + lane % 4 * 2 + i), sizeof(from));
      if (reinterpret_cast<uintptr_t>(from) % 16 != 0) std::abort();
      std::memcpy(&pair[i], from + lane / 4 * 2, sizeof(pair[i]));
    }
    std::memcpy(&r[matrix], pair, sizeof(pair));
  }
}

template <class T>
float EmulatedHalf(uint32_t pair, unsigned which) {
  T values[2];
  std::memcpy(values, &pair, sizeof(pair));
  if constexpr (__is_same(T, __nv_bfloat16)) {
    return __bfloat162float(values[which]);
  } else {
    return __half2float(values[which]);
  }
}

// Row i, column k of a lies in lane (i % 8) * 4 + (k % 8) / 2, register i / 8 + 2 (k / 8), half k % 2; row k, column n
// of b in lane n * 4 + (k % 8) / 2, register k / 8, half k % 2.
template <class T>
void MatrixMultiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
  const unsigned lane = emulated_lane();
  emulator::Exchange(0xffffffffu, mine, sizeof(mine));
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = 0;
    for (unsigned k = 0; k < 16; ++k) {
      const auto* left = static_cast<const uint32_t*>(emulator::Lane(row % 8 * 4 + k % 8 / 2));
      const auto* right = static_cast<const uint32_t*>(emulator::Lane(column * 4 + k % 8 / 2));
      sum += EmulatedHalf<T>(left[row / 8 + k / 8 * 2], k % 2) * EmulatedHalf<T>(right[4 + k / 8], k % 2);
    }
    c[i] += sum;
  }
}

inline float FastExp2(float x) { return std::exp2(x); }

template <class T>
uint32_t Pack(float low, float high) {
  T pair[2];
  if constexpr (__is_same(T, __nv_bfloat16)) {
    pair[0] = __float2bfloat16_rn(low);
    pair[1] = __float2bfloat16_rn(high);
  } else {
    pair[0] = __float2half_rn(low);
    pair[1] = __float2half_rn(high);
  }
  uint32_t packed;
  std::memcpy(&packed, pair, sizeof(packed));
  return packed;
}

}  // namespace beamline::kernels
