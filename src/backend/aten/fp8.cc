// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {
namespace {

constexpr double kLargestE4M3 = 448;
constexpr int64_t kFp8Width = 16;  // widths that tensor cores take; other products stay as they are

// Every value the nearest E4M3 number of its row, whose largest is 448 steps of the row's scale.
Tensor RoundedRows(const Tensor& x) {
  const Tensor values = x.to(c10::kFloat), largest = values.abs().amax(-1, /*keepdim=*/true);
  const Tensor scale = (largest / kLargestE4M3).clamp_min(std::numeric_limits<float>::min());
  return (values / scale).to(c10::kFloat8_e4m3fn).to(c10::kFloat) * scale;
}

}  // namespace

Tensor AtenBackend::LayerProduct(const Context& ctx, const Tensor& x, const Tensor& weight) const {
  const bool narrow = fp8_ != Fp8Products::kNone && !ctx.without_fp8;
  if (!narrow || weight.size(0) % kFp8Width != 0 || weight.size(1) % kFp8Width != 0) return at::linear(x, weight);
  return at::linear(RoundedRows(x), RoundedRows(weight)).to(x.scalar_type());
}

Tensor AtenBackend::SelfProduct(const Context& ctx, const Tensor& x, const Tensor& weight) const {
  return fp8_ == Fp8Products::kAll ? LayerProduct(ctx, x, weight) : at::linear(x, weight);
}

}  // namespace beamline::backend
