// SPDX-License-Identifier: Apache-2.0
#include "cpu/vector_ops.h"

namespace beamline::kernels {
namespace {

struct Available {
  VectorOps ops[3];
  int count = 0;
};

Available Detect() {
  Available found;
  found.ops[found.count++] = GenericVectorOps();
#ifdef BEAMLINE_KERNELS_X86
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found.ops[found.count++] = Avx2VectorOps();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    found.ops[found.count++] = Avx512VectorOps();
  }
#endif
  return found;
}

const Available& Found() {
  static const Available found = Detect();
  return found;
}

}  // namespace

const VectorOps* AvailableVectorOps(int* count) {
  *count = Found().count;
  return Found().ops;
}

const VectorOps& BestVectorOps() { return Found().ops[Found().count - 1]; }

}  // namespace beamline::kernels
