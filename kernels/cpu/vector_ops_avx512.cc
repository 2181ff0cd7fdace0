// SPDX-License-Identifier: Apache-2.0
#include "cpu/vector_ops.h"
#include "cpu/vector_ops_body.h"

namespace beamline::kernels {

const VectorOps& Avx512VectorOps() {
  static constexpr VectorOps kOps = MakeVectorOps("avx512");
  return kOps;
}

}  // namespace beamline::kernels
