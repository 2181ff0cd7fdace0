// SPDX-License-Identifier: Apache-2.0
//
// The matrix instructions of sm_90a that four warps issue together (wgmma), named; the PTX manual's chapter on
// asynchronous warpgroup level matrix instructions. They run beside the program: between WarpgroupArrive() and a
// WarpgroupWait() that covers them, their registers are not touched and their shared memory is not written.
#pragma once

#include <cstdint>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/panel.cuh"

// Whether the code that is compiled can have them.
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define BEAMLINE_COMPILES_WGMMA 1
#else
#define BEAMLINE_COMPILES_WGMMA 0
#endif

namespace beamline::kernels {

// Orders what this thread wrote to shared memory, by cp.async too, before what wgmma reads there: before the barrier
// that announces it. BEAMLINE_UNFENCED is an experiment (bench/gpu/verify.sh unfenced): nvcc makes a MEMBAR of the
// fence, which may wait for copies that are under way; CUTLASS and Triton go without it where cp.async feeds wgmma.
__device__ inline void AnnounceToWarpgroups() {
#if defined(BEAMLINE_UNFENCED)
  asm volatile("" ::: "memory");
#else
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#endif
}

// Before the first wgmma, and wherever its registers were used in between.
__device__ inline void WarpgroupArrive() { asm volatile("wgmma.fence.sync.aligned;\n" ::: "memory"); }
__device__ inline void WarpgroupCommit() { asm volatile("wgmma.commit_group.sync.aligned;\n" ::: "memory"); }

// Nothing that is computed of these moves across: for the compiler, what wgmma does is done when it is issued.
template <int kCount>
__device__ inline void Pin(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

// Waits until at most kPending of the committed groups are under way. Sums that are ready then are pinned behind it.
template <int kPending>
__device__ inline void WarpgroupWait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;\n" ::"n"(kPending) : "memory");
}

// clang-format off
#define BEAMLINE_FLOATS_8(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define BEAMLINE_WGMMA_64(types, transposed)                                                                          \
  asm volatile(                                                                                                       \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n"                                                                    \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." types " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, " \
      "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "              \
      "{%32, %33, %34, %35}, %36, p, 1, 1, " transposed ";\n}\n"                                                      \
      : BEAMLINE_FLOATS_8(d, 0), BEAMLINE_FLOATS_8(d, 8), BEAMLINE_FLOATS_8(d, 16), BEAMLINE_FLOATS_8(d, 24)          \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)))
#define BEAMLINE_WGMMA_32(types, transposed)                                                                          \
  asm volatile(                                                                                                       \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %21, 0;\n"                                                                    \
      "wgmma.mma_async.sync.aligned.m64n32k16.f32." types " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, " \
      "%13, %14, %15}, {%16, %17, %18, %19}, %20, p, 1, 1, " transposed ";\n}\n"                                      \
      : BEAMLINE_FLOATS_8(d, 0), BEAMLINE_FLOATS_8(d, 8)                                                              \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)))
#define BEAMLINE_WGMMA_SHARED_128(types)                                                                              \
  asm volatile(                                                                                                       \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." types " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, "     \
      "%12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, "     \
      "%33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, "     \
      "%54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, %64, %65, 1, 1, 1, 0, 0;\n"                                 \
      : BEAMLINE_FLOATS_8(d, 0), BEAMLINE_FLOATS_8(d, 8), BEAMLINE_FLOATS_8(d, 16), BEAMLINE_FLOATS_8(d, 24),         \
        BEAMLINE_FLOATS_8(d, 32), BEAMLINE_FLOATS_8(d, 40), BEAMLINE_FLOATS_8(d, 48), BEAMLINE_FLOATS_8(d, 56)        \
      : "l"(a), "l"(b))
#define BEAMLINE_WGMMA_SHARED_64(types)                                                                               \
  asm volatile(                                                                                                       \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." types " {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, " \
      "%13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "              \
      "%32, %33, 1, 1, 1, 0, 0;\n"                                                                                   \
      : BEAMLINE_FLOATS_8(d, 0), BEAMLINE_FLOATS_8(d, 8), BEAMLINE_FLOATS_8(d, 16), BEAMLINE_FLOATS_8(d, 24)          \
      : "l"(a), "l"(b))
// clang-format on

// d = a b, plus what d was if `add`: a [64 x 16] in the registers of the warpgroup, of each warp 16 rows as the left
// operand of MatrixMultiply; b [16 x kColumns] in shared memory; d as that of MatrixMultiply, eight columns after
// another.
template <class T, int kColumns, bool kTransposed>
__device__ inline void WarpgroupMultiply(float (&d)[kColumns / 2], const uint32_t (&a)[4], uint64_t b, bool add) {
#if BEAMLINE_COMPILES_WGMMA
  static_assert(kColumns == 64 || kColumns == 32);
  constexpr bool kBf16 = __is_same(T, __nv_bfloat16);
  if constexpr (kColumns == 64) {
    if constexpr (kBf16 && kTransposed) BEAMLINE_WGMMA_64("bf16.bf16", "1");
    if constexpr (kBf16 && !kTransposed) BEAMLINE_WGMMA_64("bf16.bf16", "0");
    if constexpr (!kBf16 && kTransposed) BEAMLINE_WGMMA_64("f16.f16", "1");
    if constexpr (!kBf16 && !kTransposed) BEAMLINE_WGMMA_64("f16.f16", "0");
  } else {
    if constexpr (kBf16 && kTransposed) BEAMLINE_WGMMA_32("bf16.bf16", "1");
    if constexpr (kBf16 && !kTransposed) BEAMLINE_WGMMA_32("bf16.bf16", "0");
    if constexpr (!kBf16 && kTransposed) BEAMLINE_WGMMA_32("f16.f16", "1");
    if constexpr (!kBf16 && !kTransposed) BEAMLINE_WGMMA_32("f16.f16", "0");
  }
#endif
}

// d += a b, both in shared memory, rows of k: a [64 x 16], b [16 x kColumns].
template <class T, int kColumns>
__device__ inline void WarpgroupMultiply(float (&d)[kColumns / 2], uint64_t a, uint64_t b) {
#if BEAMLINE_COMPILES_WGMMA
  static_assert(kColumns == 128 || kColumns == 64);
  constexpr bool kBf16 = __is_same(T, __nv_bfloat16);
  if constexpr (kColumns == 128) {
    if constexpr (kBf16) BEAMLINE_WGMMA_SHARED_128("bf16.bf16");
    if constexpr (!kBf16) BEAMLINE_WGMMA_SHARED_128("f16.f16");
  } else {
    if constexpr (kBf16) BEAMLINE_WGMMA_SHARED_64("bf16.bf16");
    if constexpr (!kBf16) BEAMLINE_WGMMA_SHARED_64("f16.f16");
  }
#endif
}

#undef BEAMLINE_WGMMA_SHARED_64
#undef BEAMLINE_WGMMA_SHARED_128
#undef BEAMLINE_WGMMA_64
#undef BEAMLINE_WGMMA_32
#undef BEAMLINE_FLOATS_8

}  // namespace beamline::kernels
