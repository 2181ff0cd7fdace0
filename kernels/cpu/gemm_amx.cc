// SPDX-License-Identifier: Apache-2.0
#include "cpu/amx_tiles.h"
#include "cpu/gemm_versions.h"

namespace beamline::kernels {

const PackedGemm& AmxGemm(Precision precision) {
  static constexpr PackedGemm kBf16 = MakePackedGemm<AmxBf16Kernel>("amx");
  static constexpr PackedGemm kInt8 = MakePackedGemm<AmxInt8Kernel>("amx");
  return precision == Precision::kBf16 ? kBf16 : kInt8;
}

}  // namespace beamline::kernels
