// SPDX-License-Identifier: Apache-2.0
#include "backend/aten/dropout.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>

namespace beamline::backend {

at::Tensor Dropout(Context& ctx, const at::Tensor& x) {
  if (!ctx.training || ctx.dropout <= 0) return x;
  const double keep = 1 - ctx.dropout;
  at::Tensor mask = at::empty_like(x).bernoulli_(keep, ctx.generator).div_(keep);
  return x * mask;
}

}  // namespace beamline::backend
