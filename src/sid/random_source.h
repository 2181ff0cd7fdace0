// SPDX-License-Identifier: Apache-2.0
//
// Random numbers that are the same on every machine and in every version: the standard's 64-bit Mersenne twister with
// our own distributions (the standard's are not specified). Not thread-safe.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

namespace beamline::sid {

class RandomSource {
 public:
  // Streams of one seed are independent: use one per purpose.
  RandomSource(uint64_t seed, uint64_t stream);

  uint64_t Next() { return engine_(); }
  uint64_t Below(uint64_t limit);  // uniform in [0, limit); REQUIRES: limit > 0
  double Unit();                   // uniform in [0, 1)
  // count distinct values of [0, n), ascending. REQUIRES: count <= n.
  std::vector<int64_t> Sample(int64_t n, int64_t count);

 private:
  std::mt19937_64 engine_;
};

}  // namespace beamline::sid
