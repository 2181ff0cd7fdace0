// SPDX-License-Identifier: Apache-2.0
//
// A small random generator whose draws are the same on every platform and in every version (the standard library's
// distributions are not): counter-based splitmix64. A value; one per thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/types/span.h"
#include "base/digest.h"

namespace beamline::data {

class Random {
 public:
  // Streams of one seed are independent of each other.
  Random(uint64_t seed, uint64_t stream) : key_(StableMix64(stream, seed)) {}

  uint64_t Next() { return StableMix64(counter_++, key_); }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }  // [0, 1)
  bool Chance(double probability) { return Uniform() < probability; }
  // REQUIRES: 0 < bound <= 2^32.
  uint64_t Below(uint64_t bound) { return ((Next() >> 32) * bound) >> 32; }
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
    return radius * std::cos(6.283185307179586 * Uniform());
  }
  // Index drawn by weight. REQUIRES: a non-empty, ascending sum of weights that ends above 0.
  size_t Pick(absl::Span<const double> cumulative) {
    const double at = Uniform() * cumulative.back();
    const size_t index = std::upper_bound(cumulative.begin(), cumulative.end(), at) - cumulative.begin();
    return std::min(index, cumulative.size() - 1);
  }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace beamline::data
