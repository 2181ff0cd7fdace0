// SPDX-License-Identifier: Apache-2.0
#include "cpu/fp32_gemm_body.h"
#include "cpu/gemm_versions.h"
#include "cpu/plain_tiles.h"

namespace beamline::kernels {

const PackedGemm& GenericGemm(Precision precision) {
  static constexpr PackedGemm kFp32 = MakePackedGemm<Fp32Kernel>("generic");
  static constexpr PackedGemm kBf16 = MakePackedGemm<PlainBf16Kernel>("generic");
  static constexpr PackedGemm kInt8 = MakePackedGemm<PlainInt8Kernel>("generic");
  return precision == Precision::kFp32 ? kFp32 : precision == Precision::kBf16 ? kBf16 : kInt8;
}

}  // namespace beamline::kernels
