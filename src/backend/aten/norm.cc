// SPDX-License-Identifier: Apache-2.0
#include <ATen/ops/rms_norm.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {

// ATen takes the statistics of bf16 rows in fp32.
Tensor AtenBackend::RmsNorm(Context& ctx, const Tensor& x, const Tensor& weight, double epsilon) const {
  return at::rms_norm(x, weight.sizes(), weight, epsilon);
}

}  // namespace beamline::backend
