// SPDX-License-Identifier: Apache-2.0
//
// One version of the packed GEMM per precision and instruction set, each from the same sources compiled with its own
// flags. But for the generic ones x86 only; REQUIRES: the CPU has the instruction set.
#pragma once

#include "beamline/kernels/packed_gemm.h"

namespace beamline::kernels {

const PackedGemm& GenericGemm(Precision precision);
const PackedGemm& Avx2Gemm(Precision precision);
const PackedGemm& Avx512Gemm(Precision precision);
const PackedGemm& AvxVnniGemm();                 // int8
const PackedGemm& Avx512VnniGemm();              // int8
const PackedGemm& Avx512Bf16Gemm();              // bf16
const PackedGemm& AmxGemm(Precision precision);  // bf16, int8; REQUIRES: CpuHas(InstructionSet::kAmx)

}  // namespace beamline::kernels
