// SPDX-License-Identifier: Apache-2.0
//
// c = activation(a b + bias) of fp32 rows a with a packed weight b, in three precisions:
//   fp32  every element of a b is one chain of multiply-adds over k from 0 on.
//   bf16  a and b are rounded to bf16 (to nearest even); products are exact; over each 32 values of k the even and the
//         odd ones are summed by themselves in fp32, then both are added, then the result to the sum so far. This is
//         what AMX does (Intel SDM, TDPBF16PS); all versions but one give the same bits, fp32 numbers below 2^-126
//         apart, which AMX takes as 0. The one is AVX-512's own instruction for bf16 (VDPBF16PS), at twice the rate of
//         fp32: a sum is one chain over pairs of k, of each the odd product first; it takes numbers below
//         2^-126 as 0, too.
//   int8  each row of a and each column of b is divided by its largest magnitude / 127 and rounded; products are summed
//         exactly in int32 and scaled back. All versions give the same bits. A row or column with a value that is not
//         finite becomes NaN. k is at most kMaxInt8Depth.
// In each of them a row's result depends on the row and the weight alone, bit for bit: not on m, n, the columns asked
// for, threads or tile sizes.
//
// A weight [n, k] (as torch.nn.Linear has it) is packed into panels of kPanel output columns, the last one filled up
// with zeros; what a panel looks like is the version's own affair. A gated weight [2 * n, k], gate rows first, becomes
// pairs of panels, gate then up; the product then has n columns activation(gate) * up.
#pragma once

#include <cstdint>

namespace beamline::kernels {

inline constexpr int64_t kPanel = 16;
inline constexpr int64_t kMaxInt8Depth = 65536;  // 255 * 127 * k stays below 2^31

enum class Precision { kFp32, kBf16, kInt8 };
enum class RowActivation { kNone, kRelu, kGelu, kGeluTanh, kSilu, kLeakyRelu };

inline constexpr int64_t PanelCount(int64_t n) { return (n + kPanel - 1) / kPanel; }

struct GemmArgs {
  const float* a = nullptr;  // [m, k]
  int64_t lda = 0;           // floats between rows
  int64_t m = 0;             // may be 0
  int64_t k = 0;             // at least 1
  const void* b = nullptr;   // packed by the same version
  bool gated = false;
  int64_t n = 0;                // columns of c; of a gated weight its width
  const float* bias = nullptr;  // [n] or null; null for a gated weight
  RowActivation activation = RowActivation::kNone;
  float* c = nullptr;  // [m, n]; shares nothing with a
  int64_t ldc = 0;
  // Panels of c's columns to compute; a thread's share.
  int64_t panel_begin = 0;
  int64_t panel_end = 0;
  void* scratch = nullptr;  // [scratch_bytes(m, k)], the thread's own, 64-byte aligned
};

// [n, k], or [2 * n, k] if gated.
struct WeightShape {
  int64_t n = 0;
  int64_t k = 0;
  bool gated = false;
};

// One precision on one instruction set. Functions are thread-safe and allocate nothing.
struct PackedGemm {
  const char* name;  // of the instruction set
  int64_t (*packed_bytes)(const WeightShape& shape);
  // weight of that shape -> packed [packed_bytes(shape)], 64-byte aligned
  void (*pack)(const float* weight, const WeightShape& shape, void* packed);
  int64_t (*scratch_bytes)(int64_t m, int64_t k);  // grows with m, up to a bound
  void (*run)(const GemmArgs& args);
};

// Versions this machine can run, the plainest first, the fastest last; `count` of them.
const PackedGemm* AvailableGemms(Precision precision, int* count);

// The fastest.
const PackedGemm& BestGemm(Precision precision);

}  // namespace beamline::kernels
