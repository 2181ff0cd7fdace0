// SPDX-License-Identifier: Apache-2.0
#include "cpu/cpu_features.h"

#ifdef BEAMLINE_KERNELS_X86
#include <cpuid.h>
#endif
#if defined(BEAMLINE_KERNELS_X86) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace beamline::kernels {
namespace {

#ifdef BEAMLINE_KERNELS_X86

// Leaf 7 of CPUID. The vector registers' state is not asked for here: that comes with AVX2 and AVX-512.
struct Leaf7 {
  unsigned int ecx = 0, edx = 0;
  unsigned int eax1 = 0;  // of subleaf 1

  Leaf7() {
    unsigned int eax = 0, ebx = 0, rest[3];
    __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx);
    if (eax >= 1) __get_cpuid_count(7, 1, &eax1, &rest[0], &rest[1], &rest[2]);
  }
  static bool Bit(unsigned int value, int bit) { return (value >> bit & 1) != 0; }
};

bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// Linux saves tile registers only for processes that asked.
bool RequestTiles() {
#if defined(__linux__)
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool HasAmx() {
  const Leaf7 leaf;
  constexpr int kBf16 = 22, kTile = 24, kInt8 = 25;
  return HasAvx512() && Leaf7::Bit(leaf.edx, kBf16) && Leaf7::Bit(leaf.edx, kTile) && Leaf7::Bit(leaf.edx, kInt8) &&
         RequestTiles();
}

#endif

}  // namespace

bool CpuHas(InstructionSet instruction_set) {
#ifdef BEAMLINE_KERNELS_X86
  static const bool avx2 = HasAvx2(), avx512 = HasAvx512(), amx = HasAmx();
  switch (instruction_set) {
    case InstructionSet::kGeneric:
      return true;
    case InstructionSet::kAvx2:
      return avx2;
    case InstructionSet::kAvx512:
      return avx512;
    case InstructionSet::kAvxVnni:
      return avx2 && Leaf7::Bit(Leaf7().eax1, 4);
    case InstructionSet::kAvx512Vnni:
      return avx512 && Leaf7::Bit(Leaf7().ecx, 11);
    case InstructionSet::kAvx512Bf16:
      return avx512 && Leaf7::Bit(Leaf7().eax1, 5);
    case InstructionSet::kAmx:
      return amx;
  }
#endif
  return instruction_set == InstructionSet::kGeneric;
}

}  // namespace beamline::kernels
