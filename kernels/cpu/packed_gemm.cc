// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/packed_gemm.h"

#include "cpu/cpu_features.h"
#include "cpu/gemm_versions.h"

namespace beamline::kernels {
namespace {

using GemmVersions = Versions<PackedGemm, 6>;

GemmVersions Detect(Precision precision) {
  GemmVersions found;
  const bool int8 = precision == Precision::kInt8, bf16 = precision == Precision::kBf16;
  found.Add(GenericGemm(precision));
#ifdef BEAMLINE_KERNELS_X86
  if (CpuHas(InstructionSet::kAvx2)) found.Add(Avx2Gemm(precision));
  if (CpuHas(InstructionSet::kAvxVnni) && int8) found.Add(AvxVnniGemm());
  if (CpuHas(InstructionSet::kAvx512)) found.Add(Avx512Gemm(precision));
  if (CpuHas(InstructionSet::kAvx512Vnni) && int8) found.Add(Avx512VnniGemm());
  if (CpuHas(InstructionSet::kAvx512Bf16) && bf16) found.Add(Avx512Bf16Gemm());
  if (CpuHas(InstructionSet::kAmx) && (bf16 || int8)) found.Add(AmxGemm(precision));
#endif
  return found;
}

const GemmVersions& Found(Precision precision) {
  static const GemmVersions fp32 = Detect(Precision::kFp32), bf16 = Detect(Precision::kBf16),
                            int8 = Detect(Precision::kInt8);
  return precision == Precision::kFp32 ? fp32 : precision == Precision::kBf16 ? bf16 : int8;
}

}  // namespace

const PackedGemm* AvailableGemms(Precision precision, int* count) {
  *count = Found(precision).count;
  return Found(precision).ops;
}

const PackedGemm& BestGemm(Precision precision) { return Found(precision).best(); }

}  // namespace beamline::kernels
