// SPDX-License-Identifier: Apache-2.0
//
// wgmma.cuh of the emulator: what the PTX manual says of wgmma, its matrix descriptors and its layouts in shared memory
// (asynchronous warpgroup level matrix instructions).
#pragma once

#include <cstdint>

#include "cuda/mma.cuh"
#include "cuda/panel.cuh"

#define BEAMLINE_COMPILES_WGMMA 1

namespace beamline::kernels {

inline void AnnounceToWarpgroups() { emulator::AnnounceToWarpgroups(); }
inline void WarpgroupArrive() { emulator::WarpgroupArrive(); }
inline void WarpgroupCommit() { emulator::CommitMultiplies(); }
template <int kPending>
void WarpgroupWait() {
  emulator::WaitForMultiplies(kPending);
}
template <int kCount>
void Pin(float (&)[kCount]) {}

// Where element (k, column) of b lies. In 16-byte chunks, w of them to a swizzled row: K-major, column c has its values
// in chunk k / 8 of row c; MN-major, k is the row. Eight rows lie together, the next eight the stride offset further;
// columns beyond w chunks of an MN-major matrix the leading offset further. Then bits 4.. of the address are permuted
// by bits 7...
inline uint32_t EmulatedAddress(uint64_t descriptor, bool transposed, unsigned k, unsigned column) {
  const uint32_t start = (descriptor & 0x3fff) << 4, leading = (descriptor >> 16 & 0x3fff) << 4,
                 stride = (descriptor >> 32 & 0x3fff) << 4;
  const unsigned swizzle = descriptor >> 62;  // 1: 128 bytes, 2: 64, 3: 32
  if (swizzle == 0) std::abort();
  const uint32_t row_bytes = 256 >> swizzle;
  const unsigned row = transposed ? k : column, across = (transposed ? column : k) * 2;
  uint32_t address = start + row / 8 * stride + row % 8 * row_bytes;
  address += transposed ? across / row_bytes * leading + across % row_bytes : across;
  return address ^ (address >> 7 & (row_bytes / 16 - 1)) << 4;
}

// Row `row` of a matrix that lies with its sixteen values of k behind each other: they are two chunks.
template <class T>
void EmulatedRow(uint64_t descriptor, unsigned row, float (&to)[16]) {
  for (unsigned k = 0; k < 16; k += 8) {
    uint32_t pairs[4];
    std::memcpy(pairs, emulator::SharedBytes(EmulatedAddress(descriptor, false, k, row), 16), 16);
    for (unsigned i = 0; i < 8; ++i) to[k + i] = EmulatedHalf<T>(pairs[i / 2], i % 2);
  }
}

// Columns `column` and the next: of each the sixteen values of k.
template <class T, bool kTransposed>
void EmulatedColumns(uint64_t descriptor, unsigned column, float (&to)[2][16]) {
  if constexpr (kTransposed) {
    for (unsigned k = 0; k < 16; ++k) {
      uint32_t pair;
      std::memcpy(&pair, emulator::SharedBytes(EmulatedAddress(descriptor, true, k, column), 4), 4);
      for (unsigned i = 0; i < 2; ++i) to[i][k] = EmulatedHalf<T>(pair, i);
    }
  } else {
    for (unsigned i = 0; i < 2; ++i) EmulatedRow<T>(descriptor, column + i, to[i]);
  }
}

// What a sum begins with.
inline float EmulatedZero() {
  if (emulator::nan_wgmmas == 0) return 0;
  --emulator::nan_wgmmas;
  return NAN;
}

template <class T, int kColumns, bool kTransposed>
void WarpgroupMultiply(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, bool add) {
  const unsigned lane = emulated_lane();
  const float zero = EmulatedZero();
  emulator::Exchange(0xffffffffu, a, sizeof(a));
  float left[2][16];  // rows lane / 4 and + 8
  for (unsigned k = 0; k < 16; ++k) {
    const auto* from = static_cast<const uint32_t*>(emulator::Lane(lane / 4 * 4 + k % 8 / 2));
    for (unsigned r = 0; r < 2; ++r) left[r][k] = EmulatedHalf<T>(from[r + k / 8 * 2], k % 2);
  }
  std::array<float, 32> rows;
  std::memcpy(rows.data(), left, sizeof(left));
  emulator::QueueMultiply([&d, rows, b, add, lane, zero] {
    float right[2][16];
    for (unsigned eight = 0; eight < kColumns / 8; ++eight) {
      EmulatedColumns<T, kTransposed>(b, eight * 8 + lane % 4 * 2, right);
      for (unsigned i = 0; i < 4; ++i) {
        float sum = zero;
        for (unsigned k = 0; k < 16; ++k) {
          sum += rows[i / 2 * 16 + k] * right[i % 2][emulator::broken_wgmma ? k ^ 8 : k];
        }
        float& to = d[eight * 4 + i];
        to = add ? to + sum : sum;
      }
    }
  });
}

template <class T, int kColumns>
void WarpgroupMultiply(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
  const unsigned lane = emulated_lane(), warp_row = threadIdx.x % 128 / 32 * 16;
  const float zero = EmulatedZero();
  emulator::QueueMultiply([&d, a, b, lane, warp_row, zero] {
    float left[2][16], right[2][16];
    for (unsigned half = 0; half < 2; ++half) EmulatedRow<T>(a, warp_row + lane / 4 + half * 8, left[half]);
    for (unsigned eight = 0; eight < kColumns / 8; ++eight) {
      EmulatedColumns<T, false>(b, eight * 8 + lane % 4 * 2, right);
      for (unsigned i = 0; i < 4; ++i) {
        float sum = zero;
        for (unsigned k = 0; k < 16; ++k) sum += left[i / 2][k] * right[i % 2][emulator::broken_wgmma ? k ^ 8 : k];
        d[eight * 4 + i] += sum;
      }
    }
  });
}

}  // namespace beamline::kernels
