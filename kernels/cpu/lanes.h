// SPDX-License-Identifier: Apache-2.0
//
// Sixteen fp32 lanes on whatever vectors the translation unit is compiled for (AVX-512, AVX2 with FMA, SSE2 or plain),
// and the functions of one variable that kernels need. Included by the vector_ops_<instruction set>.cc files only, each
// of which gets its own copy through the unnamed namespace. But for Fma nothing here contracts (-ffp-contract=off), so
// that elementwise results are the same bits on every instruction set. Everything is inlined by force: a call would
// pass the lanes through memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>
#include <utility>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define BEAMLINE_INLINE inline __attribute__((always_inline))

namespace beamline::kernels {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorFloats = 16;
#elif defined(__AVX2__)
constexpr int kVectorFloats = 8;
#else
constexpr int kVectorFloats = 4;
#endif
constexpr int kLanes = 16;
constexpr int kVectors = kLanes / kVectorFloats;

typedef float Vector __attribute__((vector_size(4 * kVectorFloats)));
typedef int32_t IntVector __attribute__((vector_size(4 * kVectorFloats)));

BEAMLINE_INLINE Vector LoadVector(const float* from) {
  Vector v;
  std::memcpy(&v, from, sizeof(v));
  return v;
}
BEAMLINE_INLINE void StoreVector(float* to, Vector v) { std::memcpy(to, &v, sizeof(v)); }
BEAMLINE_INLINE Vector Broadcast(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return Vector{x, x, x, x};
#endif
}
BEAMLINE_INLINE Vector Fma(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
// What a tile of panels reads is on its way to the second cache level while the tile before it is summed, at the same
// place: with a page's end the hardware stops looking ahead. Past the last panel it asks for what nobody reads.
BEAMLINE_INLINE void PrefetchPanel(const void* next) { __builtin_prefetch(next, 0, 2); }
// condition < 0 ? yes : no, per lane
BEAMLINE_INLINE Vector WhereNegative(Vector condition, Vector yes, Vector no) { return condition < 0.0f ? yes : no; }
BEAMLINE_INLINE Vector Max(Vector a, Vector b) { return a < b ? b : a; }
BEAMLINE_INLINE Vector Abs(Vector a) { return a < 0.0f ? -a : a; }

// exp(x) for x <= 0 within 2 ulp; 0 below -87. Reduced as in exp_non_positive.h, then the Cephes polynomial of degree 5
// in products and sums that are rounded each.
BEAMLINE_INLINE Vector ExpNonPositive(Vector x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
  const Vector lowest = Broadcast(-87.0f);
  const Vector clamped = x < lowest ? lowest : x;
  const Vector shifted = clamped * 1.44269504088896341f + kRound;
  const Vector n = shifted - kRound;
  const Vector r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  IntVector exponent;
  std::memcpy(&exponent, &shifted, sizeof(exponent));
  exponent = (exponent << 23) + 0x3f800000;
  Vector power;
  std::memcpy(&power, &exponent, sizeof(power));
  return x < lowest ? Vector{} : p * power;
}

BEAMLINE_INLINE Vector Sigmoid(Vector x) {
  const Vector e = ExpNonPositive(-Abs(x));
  return WhereNegative(x, e, Broadcast(1)) / (e + 1.0f);
}

// x Phi(x) with the normal distribution Phi, its tail within 7.5e-8 by Abramowitz and Stegun 7.1.26.
BEAMLINE_INLINE Vector Gelu(Vector x) {
  const Vector a = Abs(x) * 0.707106781186547524f;
  const Vector t = Broadcast(1) / (a * 0.3275911f + 1.0f);
  Vector p = t * 1.061405429f - 1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t - 0.284496736f;
  p = p * t + 0.254829592f;
  const Vector tail = p * t * ExpNonPositive(-(a * a));  // erfc(|x| / sqrt 2)
  const Vector below = x * 0.5f * tail;
  return WhereNegative(x, below, x - below);
}

BEAMLINE_INLINE Vector GeluTanh(Vector x) {
  const Vector inner = x + x * x * x * 0.044715f;
  return x * Sigmoid(inner * 1.59576912160573071f);  // 2 sqrt(2 / pi)
}

struct Lanes {
  Vector v[kVectors];

  BEAMLINE_INLINE static Lanes Load(const float* from) {
    return Make([from](size_t i) { return LoadVector(from + i * kVectorFloats); });
  }
  BEAMLINE_INLINE static Lanes All(float value) {
    return Make([value](size_t) { return Broadcast(value); });
  }
  // The first `count` lanes; the others are `rest`.
  static Lanes LoadPart(const float* from, int64_t count, float rest) {
    float lanes[kLanes];
    for (int i = 0; i < kLanes; ++i) lanes[i] = i < count ? from[i] : rest;
    return Load(lanes);
  }
  BEAMLINE_INLINE void Store(float* to) const {
    const Lanes& lanes = *this;
    Make([to, &lanes](size_t i) { return StoreVector(to + i * kVectorFloats, lanes.v[i]), lanes.v[i]; });
  }
  void StorePart(float* to, int64_t count) const {
    float lanes[kLanes];
    Store(lanes);
    std::memcpy(to, lanes, count * sizeof(float));
  }
  // Lanes of f(vector index), unrolled by the template, so that no array is left to live in memory.
  template <typename F>
  BEAMLINE_INLINE static Lanes Make(F f) {
    return Unrolled(f, std::make_index_sequence<kVectors>());
  }

 private:
  template <typename F, size_t... kIndex>
  BEAMLINE_INLINE static Lanes Unrolled(F f, std::index_sequence<kIndex...>) {
    return {{f(kIndex)...}};
  }
};

BEAMLINE_INLINE Lanes operator+(const Lanes& a, const Lanes& b) {
  return Lanes::Make([&](size_t i) { return a.v[i] + b.v[i]; });
}
BEAMLINE_INLINE Lanes operator-(const Lanes& a, const Lanes& b) {
  return Lanes::Make([&](size_t i) { return a.v[i] - b.v[i]; });
}
BEAMLINE_INLINE Lanes operator*(const Lanes& a, const Lanes& b) {
  return Lanes::Make([&](size_t i) { return a.v[i] * b.v[i]; });
}
BEAMLINE_INLINE Lanes operator/(const Lanes& a, const Lanes& b) {
  return Lanes::Make([&](size_t i) { return a.v[i] / b.v[i]; });
}
BEAMLINE_INLINE Lanes Max(const Lanes& a, const Lanes& b) {
  return Lanes::Make([&](size_t i) { return Max(a.v[i], b.v[i]); });
}
BEAMLINE_INLINE Lanes ExpNonPositive(const Lanes& x) {
  return Lanes::Make([&](size_t i) { return ExpNonPositive(x.v[i]); });
}
BEAMLINE_INLINE Lanes Sigmoid(const Lanes& x) {
  return Lanes::Make([&](size_t i) { return Sigmoid(x.v[i]); });
}

// Lane i gets lane i ^ kHalf.
template <int kHalf, size_t... kIndex>
BEAMLINE_INLINE Vector Swap(Vector v, std::index_sequence<kIndex...>) {
  return __builtin_shufflevector(v, v, (kIndex ^ kHalf)...);
}
template <int kHalf, typename F>
BEAMLINE_INLINE float FoldVector(Vector v, F f) {
  if constexpr (kHalf == 0) {
    return v[0];
  } else {
    return FoldVector<kHalf / 2>(f(v, Swap<kHalf>(v, std::make_index_sequence<kVectorFloats>())), f);
  }
}
// Folds the upper half of the lanes into the lower one until one is left: always in the same order.
template <typename F>
BEAMLINE_INLINE float Fold(const Lanes& a, F f) {
  if constexpr (kVectors == 4) {
    return FoldVector<kVectorFloats / 2>(f(f(a.v[0], a.v[2]), f(a.v[1], a.v[3])), f);
  } else if constexpr (kVectors == 2) {
    return FoldVector<kVectorFloats / 2>(f(a.v[0], a.v[1]), f);
  } else {
    return FoldVector<kVectorFloats / 2>(a.v[0], f);
  }
}
BEAMLINE_INLINE float Sum(const Lanes& a) {
  return Fold(a, [](Vector x, Vector y) { return x + y; });
}
BEAMLINE_INLINE float Largest(const Lanes& a) {
  return Fold(a, [](Vector x, Vector y) { return Max(x, y); });
}

}  // namespace
}  // namespace beamline::kernels
