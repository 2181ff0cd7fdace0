// SPDX-License-Identifier: Apache-2.0
#include "cpu/bf16_gemm_body.h"
#include "cpu/fp32_gemm_body.h"
#include "cpu/gemm_versions.h"
#include "cpu/int8_gemm_body.h"

namespace beamline::kernels {

const PackedGemm& Avx512Gemm(Precision precision) {
  static constexpr PackedGemm kFp32 = MakePackedGemm<Fp32Kernel>("avx512");
  static constexpr PackedGemm kBf16 = MakePackedGemm<Bf16Kernel>("avx512");
  static constexpr PackedGemm kInt8 = MakePackedGemm<Int8Kernel>("avx512");
  return precision == Precision::kFp32 ? kFp32 : precision == Precision::kBf16 ? kBf16 : kInt8;
}

}  // namespace beamline::kernels
