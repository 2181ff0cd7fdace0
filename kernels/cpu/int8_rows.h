// SPDX-License-Identifier: Apache-2.0
//
// Rows of the int8 product: the scale (float), then the values, each with kOffset added, filled up with zeros.
#pragma once

#include <algorithm>
#include <limits>

#include "cpu/int8_format.h"
#include "cpu/lanes.h"

namespace beamline::kernels {
namespace {

constexpr int64_t kInt8RowHeader = 64;  // bytes before the values

// Scale and factor of a row; NaN and 0 where a value is not finite.
inline Int8Scale RowScale(const float* row, int64_t k) {
  Lanes largest = Lanes::All(0), zero = Lanes::All(0);  // zero: NaN of what is not finite
  for (int64_t i = 0; i < k; i += kLanes) {
    const Lanes x = k - i >= kLanes ? Lanes::Load(row + i) : Lanes::LoadPart(row + i, k - i, 0);
    largest = Lanes::Make([&](size_t v) { return Max(largest.v[v], Abs(x.v[v])); });
    zero = zero + x * Lanes::All(0);
  }
  Int8Scale scale(Largest(largest));
  if (Sum(zero) != 0) {
    scale.scale = std::numeric_limits<float>::quiet_NaN();
    scale.inverse = 0;
  }
  return scale;
}

template <typename Value, int kOffset>
void QuantiseRow(const float* row, int64_t k, int64_t padded, char* to) {
  typedef Value Values __attribute__((vector_size(sizeof(Value) * kVectorFloats)));
  const Int8Scale scale = RowScale(row, k);
  std::memcpy(to, &scale.scale, sizeof(scale.scale));
  to += kInt8RowHeader;
  const Lanes inverse = Lanes::All(scale.inverse);
  for (int64_t i = 0; i < padded; i += kLanes) {
    const int64_t count = std::clamp<int64_t>(k - i, 0, kLanes);
    const Lanes x = (count == kLanes ? Lanes::Load(row + i) : Lanes::LoadPart(row + i, count, 0)) * inverse;
    for (int v = 0; v < kVectors; ++v, to += sizeof(Values)) {
      const Vector shifted = x.v[v] + kRoundToInteger;
      IntVector bits;
      std::memcpy(&bits, &shifted, sizeof(bits));
      const Values values = __builtin_convertvector(bits - (kRoundedZero - kOffset), Values);
      std::memcpy(to, &values, sizeof(values));
    }
  }
}

}  // namespace
}  // namespace beamline::kernels
