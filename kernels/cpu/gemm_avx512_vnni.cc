// SPDX-License-Identifier: Apache-2.0
#include "cpu/gemm_versions.h"
#include "cpu/int8_gemm_body.h"

namespace beamline::kernels {

const PackedGemm& Avx512VnniGemm() {
  static constexpr PackedGemm kInt8 = MakePackedGemm<Int8Kernel>("avx512_vnni");
  return kInt8;
}

}  // namespace beamline::kernels
