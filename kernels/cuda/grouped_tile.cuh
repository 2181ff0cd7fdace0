// SPDX-License-Identifier: Apache-2.0
//
// Which rows of which expert a block of a grouped product has.
#pragma once

#include <cstdint>

#include <cuda_runtime.h>

#include "beamline/kernels/moe_cuda.h"

namespace beamline::kernels {

// The places [begin, end) of one expert that a tile holds, at most `rows`; no places where the tile is beyond the last.
struct Tile {
  int32_t expert = 0, begin = 0, end = 0;
};

// All lanes of a warp together: 32 experts are looked at in the time of one.
__device__ inline Tile TileOf(const GroupedProductArgs& args, int32_t tile, int32_t rows) {
  constexpr unsigned kFullWarp = 0xffffffffu;
  const int lane = threadIdx.x % 32;
  for (int32_t first = 0; first < args.experts; first += 32) {
    const int32_t e = first + lane;
    const int32_t begin = e < args.experts ? args.begin[e] : 0, end = e < args.experts ? args.begin[e + 1] : 0;
    const int32_t tiles = (end - begin + rows - 1) / rows;
    int32_t up_to = tiles;  // of this expert and those before
    for (int offset = 1; offset < 32; offset *= 2) {
      const int32_t before = __shfl_up_sync(kFullWarp, up_to, offset);
      if (lane >= offset) up_to += before;
    }
    const unsigned after = __ballot_sync(kFullWarp, tile < up_to);
    if (after != 0) {
      const int owner = __ffs(static_cast<int>(after)) - 1;
      const int32_t own = tile - __shfl_sync(kFullWarp, up_to - tiles, owner);
      const int32_t begins = __shfl_sync(kFullWarp, begin, owner) + own * rows;
      const int32_t ends = __shfl_sync(kFullWarp, end, owner);
      return {first + owner, begins, begins + rows < ends ? begins + rows : ends};
    }
    tile -= __shfl_sync(kFullWarp, up_to, 31);
  }
  return {};
}

// Every expert's last tile may be part empty.
inline unsigned MostTiles(const GroupedProductArgs& args, int32_t rows) {
  return static_cast<unsigned>((args.entries - 1) / rows + 1 + args.experts);
}

template <class T>
__device__ const T* Row(const GroupedProductArgs& args, int32_t place) {
  const int64_t row = args.entry == nullptr ? place : args.entry[place] / args.divisor;
  return static_cast<const T*>(args.x) + row * args.k;
}

}  // namespace beamline::kernels
