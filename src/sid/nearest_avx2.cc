// SPDX-License-Identifier: Apache-2.0
#include "sid/nearest_kernel.h"
#include "sid/nearest_kernel_body.h"

namespace beamline::sid {

const NearestKernels& Avx2Kernels() {
  static constexpr NearestKernels kKernels = {&NearestBody, &ScoresBody};
  return kKernels;
}

}  // namespace beamline::sid
