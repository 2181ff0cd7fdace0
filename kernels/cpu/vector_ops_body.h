// SPDX-License-Identifier: Apache-2.0
//
// The rest of vector_ops.h, and the table a vector_ops_<instruction set>.cc exports.
#pragma once

#include <cmath>

#include "beamline/kernels/vector_ops.h"
#include "cpu/attention_body.h"
#include "cpu/lanes.h"

namespace beamline::kernels {
namespace {

// Calls f(at, count) for every kLanes elements.
template <typename F>
BEAMLINE_INLINE void ForLanes(int64_t count, F f) {
  for (int64_t at = 0; at < count; at += kLanes) f(at, count - at < kLanes ? count - at : int64_t{kLanes});
}
BEAMLINE_INLINE Lanes LoadSome(const float* from, int64_t count) {
  return count == kLanes ? Lanes::Load(from) : Lanes::LoadPart(from, count, 0);
}
BEAMLINE_INLINE void StoreSome(const Lanes& x, float* to, int64_t count) {
  if (count == kLanes) {
    x.Store(to);
  } else {
    x.StorePart(to, count);
  }
}

void RmsNorm(const RmsNormArgs& args) {
  const int64_t d = args.d;
  const float *x = args.x, *weight = args.weight;
  float* y = args.y;
  for (int64_t row = 0; row < args.rows; ++row, x += d, y += d) {
    const double mean = static_cast<double>(Dot(x, x, d)) / static_cast<double>(d);
    const float scale = static_cast<float>(1 / std::sqrt(mean + static_cast<double>(args.epsilon)));
    ForLanes(d, [&](int64_t at, int64_t count) {
      StoreSome(LoadSome(x + at, count) * Lanes::All(scale) * LoadSome(weight + at, count), y + at, count);
    });
  }
}

void Add(const float* a, const float* b, int64_t count, float* out) {
  ForLanes(count, [&](int64_t at, int64_t n) { StoreSome(LoadSome(a + at, n) + LoadSome(b + at, n), out + at, n); });
}

void AddScaled(const float* x, float scale, int64_t count, float* out) {
  ForLanes(count, [&](int64_t at, int64_t n) {
    StoreSome(LoadSome(out + at, n) + LoadSome(x + at, n) * Lanes::All(scale), out + at, n);
  });
}

void AddGated(const AddGatedArgs& args) {
  const float *a = args.a, *gate = args.gate, *b = args.b;
  float* out = args.out;
  ForLanes(args.count, [&](int64_t at, int64_t n) {
    StoreSome(LoadSome(a + at, n) + Sigmoid(LoadSome(gate + at, n)) * LoadSome(b + at, n), out + at, n);
  });
}

constexpr VectorOps MakeVectorOps(const char* name) {
  return {name, &ContextAttention, &LineageAttention, &RmsNorm, &Add, &AddScaled, &AddGated};
}

}  // namespace
}  // namespace beamline::kernels
