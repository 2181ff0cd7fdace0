// SPDX-License-Identifier: Apache-2.0
#include "cpu/vector_ops.h"
#include "cpu/vector_ops_body.h"

namespace beamline::kernels {

const VectorOps& GenericVectorOps() {
  static constexpr VectorOps kOps = MakeVectorOps("generic");
  return kOps;
}

}  // namespace beamline::kernels
