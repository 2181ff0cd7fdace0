// SPDX-License-Identifier: Apache-2.0
//
// What this CPU and its operating system can do, asked once.
#pragma once

namespace beamline::kernels {

enum class InstructionSet {
  kGeneric,  // what the compiler targets by itself
  kAvx2,     // with FMA
  kAvx512,   // F, BW, DQ, VL
  kAvxVnni,
  kAvx512Vnni,
  kAvx512Bf16,
  kAmx,  // tiles, bf16 and int8; asks the kernel for the tile registers, which it grants to the whole process
};

bool CpuHas(InstructionSet instruction_set);

// The versions of a table of functions that this machine can run, added from the plainest to the fastest.
template <typename Ops, int kMost>
struct Versions {
  Ops ops[kMost];
  int count = 0;

  void Add(const Ops& version) { ops[count++] = version; }
  const Ops& best() const { return ops[count - 1]; }
};

}  // namespace beamline::kernels
