// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>

#include "backend/aten/aten_backend.h"
#include "backend/aten/dropout.h"

namespace beamline::backend {
namespace {

Tensor Apply(Activation activation, const Tensor& x) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kLeakyRelu:
      return at::leaky_relu(x, 0.01);
  }
  return x;
}

}  // namespace

Tensor AtenBackend::Dense(Context& ctx, const Tensor& x, const DenseWeights& w, Activation activation) const {
  return Apply(activation, at::linear(x, w.weight, w.bias.defined() ? std::optional<Tensor>(w.bias) : std::nullopt));
}

Tensor AtenBackend::FeedForward(Context& ctx, const Tensor& x, const FeedForwardWeights& w) const {
  Tensor hidden = LayerProduct(ctx, x, w.up);
  if (w.gated) {
    const auto halves = hidden.chunk(2, -1);
    hidden = Apply(w.activation, halves[0]) * halves[1];
  } else {
    hidden = Apply(w.activation, hidden);
  }
  if (w.inner_dropout) hidden = ApplyDropout(ctx, hidden);
  return LayerProduct(ctx, hidden, w.down);
}

Tensor AtenBackend::Residual(Context& ctx, const Tensor& x, const Tensor& delta) const {
  return x + ApplyDropout(ctx, delta);
}

Tensor AtenBackend::Dropout(Context& ctx, const Tensor& x) const { return ApplyDropout(ctx, x); }

Tensor AtenBackend::LevelHead(Context& ctx, const Tensor& x, const HeadWeights& head, const LevelRows& of) const {
  Tensor rows = x.view({-1, of.levels, x.size(1)}).select(1, of.level).to(c10::kFloat);
  if (head.scale != 1) rows = rows * head.scale;
  const std::optional<Tensor> bias = head.bias.defined() ? std::optional<Tensor>(head.bias) : std::nullopt;
  return at::linear(rows, head.weight.to(c10::kFloat), bias).view({of.batch, -1, head.weight.size(0)});
}

}  // namespace beamline::backend
