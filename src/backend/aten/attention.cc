// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include <ATen/ops/linear.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {
namespace {

// [batch, queries, heads, head_dim] and [batch, keys, 2, heads, head_dim] -> [batch * queries, heads * head_dim].
// A query whose keys are all masked gets 0 (ATen's safe softmax).
Tensor Attend(const Tensor& query, const Tensor& key_value, const std::optional<Tensor>& mask, bool causal) {
  const Tensor key = key_value.select(2, 0), value = key_value.select(2, 1);
  const Tensor attended = at::scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2),
                                                           value.transpose(1, 2), mask, /*dropout_p=*/0.0, causal);
  return attended.transpose(1, 2).reshape({query.size(0) * query.size(1), query.size(2) * query.size(3)});
}

// [batch, queries, keys] of "sees" -> additive [batch, 1, queries, keys]
Tensor AdditiveMask(const Context& ctx, const Tensor& sees) {
  const Tensor zeros = at::zeros(sees.sizes(), c10::TensorOptions().dtype(ctx.dtype).device(ctx.device));
  return zeros.masked_fill_(sees.logical_not(), -std::numeric_limits<double>::infinity()).unsqueeze(1);
}

}  // namespace

Tensor AtenBackend::VisibilityMask(Context& ctx, const Tensor& order, const Tensor& limit, int repeat) const {
  const Tensor limits = repeat == 1 ? limit : limit.repeat_interleave(repeat, 1);
  return AdditiveMask(ctx, order.unsqueeze(1).le(limits.unsqueeze(2)));
}

Tensor AtenBackend::PaddingMask(Context& ctx, const Tensor& order) const {
  return AdditiveMask(ctx, order.le(kSeesAllOrders).unsqueeze(1));
}

Tensor AtenBackend::SelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                  const Tensor& mask) const {
  const int64_t batch = mask.size(0), tokens = mask.size(3);
  const Tensor qkv = at::linear(x, w.qkv).view({batch, tokens, 3, w.heads, -1});
  const Tensor attended =
      Attend(qkv.select(2, 0), qkv.narrow(2, 1, 2), mask.expand({batch, 1, tokens, tokens}), /*causal=*/false);
  return at::linear(attended, w.out);
}

Tensor AtenBackend::CausalSelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                        int length) const {
  const Tensor qkv = at::linear(x, w.qkv).view({-1, length, 3, w.heads, w.out.size(1) / w.heads});
  const Tensor attended = Attend(qkv.select(2, 0), qkv.narrow(2, 1, 2), std::nullopt, /*causal=*/true);
  return at::linear(attended, w.out);
}

Tensor AtenBackend::ContextKeyValue(Context& ctx, const Tensor& x, const CrossAttentionWeights& w,
                                    int64_t batch) const {
  return at::linear(x, w.key_value).view({batch, -1, w.key_value.size(0)});
}

Tensor AtenBackend::CrossAttention(Context& ctx, const Tensor& x, const CrossAttentionWeights& w, const Tensor& context,
                                   const Tensor& mask) const {
  const int64_t batch = context.size(0), tokens = context.size(1), head_dim = w.out.size(1) / w.heads;
  const Tensor query = at::linear(x, w.query).view({batch, -1, w.heads, head_dim});
  const Tensor attended = Attend(query, context.view({batch, tokens, 2, w.heads, head_dim}),
                                 mask.expand({batch, 1, query.size(1), tokens}), /*causal=*/false);
  return at::linear(attended, w.out);
}

Tensor AtenBackend::LineageAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, int64_t batch,
                                     const Tensor& lineage, bool last, LineageCache& cache) const {
  const int64_t inner = w.out.size(1), head_dim = inner / w.heads, rows = x.size(0);
  const Tensor qkv = at::linear(x, w.qkv).view({batch, -1, 3 * inner});
  const Tensor own = qkv.narrow(2, inner, 2 * inner);  // [batch, rows, 2 * inner]

  std::vector<Tensor> visible;  // per step taken, then the row itself
  for (size_t step = 0; step < cache.steps.size(); ++step) {
    const Tensor ancestor = lineage.select(2, static_cast<int64_t>(step)).unsqueeze(2).expand_as(own);
    visible.push_back(cache.steps[step].gather(1, ancestor));
  }
  visible.push_back(own);
  if (!last) cache.steps.push_back(own.contiguous());

  const int64_t steps = static_cast<int64_t>(visible.size());
  const Tensor key_value = at::stack(visible, 2).view({rows, steps, 2, w.heads, head_dim});
  const Tensor query = qkv.narrow(2, 0, inner).reshape({rows, 1, w.heads, head_dim});
  return at::linear(Attend(query, key_value, std::nullopt, /*causal=*/false), w.out);
}

}  // namespace beamline::backend
