// SPDX-License-Identifier: Apache-2.0
//
// Stands in for the kernels' own: a CPU that has everything, as far as the emulation on AVX2 goes.
#include "cpu/cpu_features.h"

namespace beamline::kernels {

bool CpuHas(InstructionSet instruction_set) {
  static const bool emulates = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return emulates || instruction_set == InstructionSet::kGeneric;
}

}  // namespace beamline::kernels
