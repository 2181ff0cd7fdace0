// SPDX-License-Identifier: Apache-2.0
//
// How a matrix lies in shared memory for wgmma (wgmma.cuh).
#pragma once

#include <cstddef>
#include <cstdint>

#include <cuda_runtime.h>

#include "cuda/mma.cuh"

namespace beamline::kernels {

// A matrix of 16-bit values in shared memory as wgmma reads it: rows of kPanel values (64 or 32: 128 or 64 bytes)
// behind each other, whose 16-byte chunks are permuted as PanelChunk says; `panel` is aligned to eight rows. The same
// for both uses: rows are columns of b and values its k, or rows are its k and values its columns (kTransposed).
template <int kPanel>
__device__ inline uint64_t PanelDescriptor(uint32_t address) {
  static_assert(kPanel == 64 || kPanel == 32);
  constexpr uint64_t kEightRows = 8 * kPanel * 2 / 16;  // from one group of eight rows to the next, of 16 bytes
  constexpr uint64_t kSwizzle = kPanel == 64 ? 1 : 2;
  return (address & 0x3ffff) >> 4 | uint64_t{1} << 16 | kEightRows << 32 | kSwizzle << 62;
}

// Where chunk `chunk` of row `row` of a panel lies in the row: no two of eight rows in the same banks.
template <int kPanel>
__device__ inline unsigned PanelChunk(unsigned row, unsigned chunk) {
  return chunk ^ (kPanel == 64 ? row % 8 : row / 2 % 4);
}

// Panels begin at multiples of this: eight rows of 128 bytes.
inline constexpr size_t kWarpgroupAlignment = 1024;

// Where a Storage lies so in a block's dynamic shared memory, of which it has kWarpgroupAlignment more.
template <class Storage>
__device__ inline Storage* AlignedForWarpgroups(unsigned char* shared) {
  constexpr uint32_t kTo = kWarpgroupAlignment;
  return reinterpret_cast<Storage*>(shared + (kTo - SharedAddress(shared) % kTo) % kTo);
}

}  // namespace beamline::kernels
