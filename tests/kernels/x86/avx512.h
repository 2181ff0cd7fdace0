// SPDX-License-Identifier: Apache-2.0
//
// Included before kernels that a compiler for AVX2 shall take as for AVX-512 (BEAMLINE_EMULATE_AVX512), VNNI
// (BEAMLINE_EMULATE_VNNI) or both: the intrinsics that they use, on the compiler's own vectors, which it splits. What
// this shows: that the sources are right at these widths. What it cannot: the instructions that a compiler makes of
// them.
#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

// NOLINTBEGIN(readability-identifier-naming): the intrinsics' names
namespace emulator {

typedef int8_t Bytes64 __attribute__((vector_size(64)));
typedef int16_t Shorts64 __attribute__((vector_size(64)));
typedef int32_t Ints64 __attribute__((vector_size(64)));
typedef float Floats64 __attribute__((vector_size(64)));
typedef int8_t Bytes32 __attribute__((vector_size(32)));

#define BEAMLINE_EMULATED_OP inline __attribute__((always_inline))

BEAMLINE_EMULATED_OP Floats64 Set1Ps(float x) { return x - Floats64{}; }
BEAMLINE_EMULATED_OP __m512i Set1Epi32(int32_t x) { return reinterpret_cast<__m512i>(x - Ints64{}); }
BEAMLINE_EMULATED_OP __m512i Load512(const void* from) {
  __m512i loaded;
  std::memcpy(&loaded, from, sizeof(loaded));
  return loaded;
}
BEAMLINE_EMULATED_OP Floats64 FmaddPs(Floats64 a, Floats64 b, Floats64 c) {
  __m256 half[3][2];
  std::memcpy(half[0], &a, sizeof(a));
  std::memcpy(half[1], &b, sizeof(b));
  std::memcpy(half[2], &c, sizeof(c));
  for (int i = 0; i < 2; ++i) half[2][i] = _mm256_fmadd_ps(half[0][i], half[1][i], half[2][i]);
  std::memcpy(&c, half[2], sizeof(c));
  return c;
}
BEAMLINE_EMULATED_OP __m512i CvtEpi8Epi16(__m256i bytes) {
  return reinterpret_cast<__m512i>(__builtin_convertvector(reinterpret_cast<Bytes32>(bytes), Shorts64));
}
BEAMLINE_EMULATED_OP __m512i AddEpi32(__m512i a, __m512i b) {
  return reinterpret_cast<__m512i>(reinterpret_cast<Ints64>(a) + reinterpret_cast<Ints64>(b));
}
BEAMLINE_EMULATED_OP __m512i MaddEpi16(__m512i a, __m512i b) {
  __m256i half[2][2];
  std::memcpy(half[0], &a, sizeof(a));
  std::memcpy(half[1], &b, sizeof(b));
  for (int i = 0; i < 2; ++i) half[0][i] = _mm256_madd_epi16(half[0][i], half[1][i]);
  std::memcpy(&a, half[0], sizeof(a));
  return a;
}
// sum + unsigned bytes of a times signed ones of b, four by four; wraps.
template <typename Vector>
BEAMLINE_EMULATED_OP Vector Dpbusd(Vector sum, Vector a, Vector b) {
  uint32_t sums[sizeof(Vector) / 4];
  uint8_t x[sizeof(Vector)];
  int8_t y[sizeof(Vector)];
  std::memcpy(sums, &sum, sizeof(sum));
  std::memcpy(x, &a, sizeof(a));
  std::memcpy(y, &b, sizeof(b));
  for (size_t i = 0; i < sizeof(Vector); ++i) sums[i / 4] += static_cast<uint32_t>(x[i] * y[i]);
  std::memcpy(&sum, sums, sizeof(sum));
  return sum;
}

// sum + pairs of bf16 numbers of a and b, of each pair the odd product first; numbers below 2^-126 are kept, which the
// instruction takes as 0.
BEAMLINE_EMULATED_OP Floats64 Dpbf16(Floats64 sum, __m512i a, __m512i b) {
  Ints64 x, y;
  std::memcpy(&x, &a, sizeof(x));
  std::memcpy(&y, &b, sizeof(y));
  const auto floats = [](Ints64 bits) { return reinterpret_cast<Floats64>(bits); };
  const Ints64 odd = Ints64{} + static_cast<int32_t>(0xffff0000);
  return FmaddPs(floats(x << 16), floats(y << 16), FmaddPs(floats(x & odd), floats(y & odd), sum));
}

}  // namespace emulator

#define __m512bh __m512i
#define _mm512_dpbf16_ps emulator::Dpbf16
#define _mm512_set1_ps emulator::Set1Ps
#define _mm512_fmadd_ps emulator::FmaddPs
#define _mm512_set1_epi32 emulator::Set1Epi32
#define _mm512_loadu_si512 emulator::Load512
#define _mm512_cvtepi8_epi16 emulator::CvtEpi8Epi16
#define _mm512_add_epi32 emulator::AddEpi32
#define _mm512_madd_epi16 emulator::MaddEpi16
#define _mm512_dpbusd_epi32 emulator::Dpbusd<__m512i>
#define _mm256_dpbusd_avx_epi32 emulator::Dpbusd<__m256i>

// After the compiler's own headers, which would take these as said of the compiler.
#if defined(BEAMLINE_EMULATE_AVX512)
#define __AVX512F__ 1
#endif
#if defined(BEAMLINE_EMULATE_AVX512) && defined(BEAMLINE_EMULATE_VNNI)
#define __AVX512VNNI__ 1
#elif defined(BEAMLINE_EMULATE_VNNI)
#define __AVXVNNI__ 1
#endif
// NOLINTEND(readability-identifier-naming)
