// SPDX-License-Identifier: Apache-2.0
#include "cpu/bf16_pairs_body.h"
#include "cpu/gemm_versions.h"

namespace beamline::kernels {

const PackedGemm& Avx512Bf16Gemm() {
  static constexpr PackedGemm kBf16 = MakePackedGemm<Bf16PairsKernel>("avx512_bf16");
  return kBf16;
}

}  // namespace beamline::kernels
