// SPDX-License-Identifier: Apache-2.0
//
// Few sizes for many: how much room a batch gives to its requests, the tokens of their contexts and the beams of a step
// where passes are kept per shape. A pure function.
#pragma once

#include <cstdint>

namespace beamline::backend {

// The next of 1, 2, ..., 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, ...: four sizes for every doubling, so that less than a
// fifth of the room is empty, and 20 sizes serve up to 64, 36 up to 1,024.
constexpr int64_t RoomInFewSizes(int64_t size) {
  if (size <= 8) return size;
  int64_t step = 1;
  while (8 * step < size) step *= 2;  // size lies in (4 * step, 8 * step]
  return (size + step - 1) / step * step;
}

inline constexpr int64_t kFewestRowsToPack = 1024;  // fewer take a GPU hardly less time

// A batch of so many tokens that takes `padded` rows with its padding: one, two, three quarters of these, or all. Each
// is a pass of its own for every shape of the batch, so there are no more.
constexpr int64_t RowsInQuarters(int64_t tokens, int64_t padded) {
  if (padded < kFewestRowsToPack) return padded;
  for (int64_t quarters = 1; quarters < 4; ++quarters) {
    const int64_t rows = padded * quarters / 4;
    if (tokens <= rows) return rows;
  }
  return padded;
}

}  // namespace beamline::backend
