// SPDX-License-Identifier: Apache-2.0
#include "cpu/vector_ops.h"

#include "cpu/cpu_features.h"

namespace beamline::kernels {
namespace {

using VectorOpsVersions = Versions<VectorOps, 3>;

VectorOpsVersions Detect() {
  VectorOpsVersions found;
  found.Add(GenericVectorOps());
#ifdef BEAMLINE_KERNELS_X86
  if (CpuHas(InstructionSet::kAvx2)) found.Add(Avx2VectorOps());
  if (CpuHas(InstructionSet::kAvx512)) found.Add(Avx512VectorOps());
#endif
  return found;
}

const VectorOpsVersions& Found() {
  static const VectorOpsVersions found = Detect();
  return found;
}

}  // namespace

const VectorOps* AvailableVectorOps(int* count) {
  *count = Found().count;
  return Found().ops;
}

const VectorOps& BestVectorOps() { return Found().best(); }

}  // namespace beamline::kernels
