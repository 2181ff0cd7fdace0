// SPDX-License-Identifier: Apache-2.0
//
// Which share of something a rank has. Shares are consecutive, in rank order, and differ by at most one; where `size`
// divides what is shared they are equal. Pure.
#pragma once

#include <cstdint>

namespace beamline::parallel {

struct Shard {
  int rank = 0;
  int size = 1;  // 1: all of it

  bool whole() const { return size == 1; }
  // Of [0, n).
  int64_t begin(int64_t n) const { return n * rank / size; }
  int64_t end(int64_t n) const { return n * (rank + 1) / size; }
  int64_t count(int64_t n) const { return end(n) - begin(n); }
  Shard of(int other_rank) const { return {other_rank, size}; }
};

}  // namespace beamline::parallel
