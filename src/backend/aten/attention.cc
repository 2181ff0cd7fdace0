// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>
#include <ATen/ops/_safe_softmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "backend/aten/aten_backend.h"
#include "backend/aten/dropout.h"
#include "backend/ops.h"

namespace beamline::backend {
namespace {

struct Scores {
  std::optional<Tensor> mask;  // additive, broadcastable to [batch, heads, queries, keys]
  bool causal = false;
  double scale = 0;      // 0: 1 / sqrt(head_dim)
  bool dropout = false;  // of the probabilities
};

// [batch, tokens, heads, head_dim] each; keys and values of as many tokens. Taken apart with unbind, whose gradient is
// one pass; that of a slice is a tensor of zeros as large as the whole, and a sum for each.
struct Heads {
  Tensor query, key, value;
};

// -> [batch * queries, heads * head_dim]. A query whose keys are all masked gets 0 (ATen's safe softmax).
Tensor Attend(Context& ctx, const Heads& heads, const Scores& scores) {
  const Tensor &query = heads.query, q = query.transpose(1, 2), k = heads.key.transpose(1, 2),
               v = heads.value.transpose(1, 2);
  const double scale = scores.scale == 0 ? 1 / std::sqrt(static_cast<double>(q.size(3))) : scores.scale;
  // The fused kernels have no gradient for the mask, and draw from a generator that is not ours.
  const bool learned_mask = scores.mask && scores.mask->requires_grad();
  Tensor attended;
  if (scores.mask && (learned_mask || (scores.dropout && ctx.training))) {
    const Tensor products = at::matmul(scale == 1 ? q : q * scale, k.contiguous().transpose(2, 3));
    const Tensor probabilities = at::_safe_softmax(products + *scores.mask, -1);
    attended = at::matmul(scores.dropout ? ApplyDropout(ctx, probabilities) : probabilities, v);
  } else {
    attended = at::scaled_dot_product_attention(q, k, v, scores.mask, /*dropout_p=*/0.0, scores.causal, scale);
  }
  return attended.transpose(1, 2).reshape({query.size(0) * query.size(1), query.size(2) * query.size(3)});
}

// [batch, queries, keys] of "sees" -> additive [batch, 1, queries, keys]
Tensor AdditiveMask(const Context& ctx, const Tensor& sees) {
  const Tensor zeros = at::zeros(sees.sizes(), c10::TensorOptions().dtype(ctx.dtype).device(ctx.device));
  return zeros.masked_fill_(sees.logical_not(), -std::numeric_limits<double>::infinity()).unsqueeze(1);
}

// bool [rows, rows]
Tensor OfOneRequest(const TokenPacking& packing) {
  const Tensor begins = packing.bounds.select(0, 0).contiguous();
  const Tensor request = at::searchsorted(begins, at::arange(packing.from.size(0), begins.options()), false, true);
  return request.unsqueeze(0).eq(request.unsqueeze(1));
}

// [1, heads, queries, keys]: of keys 0..keys-1 for the last `queries` of as many positions. One look-up per distance:
// row q of the matrix is the window of them that ends at the distance of the last key.
Tensor BiasMatrix(Context& ctx, const RelativeBias& bias, int64_t queries, int64_t keys) {
  std::vector<int32_t> buckets;  // of the distances 1 - keys..queries - 1
  for (int64_t distance = 1 - keys; distance < queries; ++distance) {
    buckets.push_back(kernels::RelativePositionBucket(static_cast<int32_t>(distance), bias.buckets));
  }
  const Tensor index = UploadInts(ctx, buckets, {queries + keys - 1});
  return at::embedding(bias.table, index).t().unfold(1, keys, 1).flip(1).unsqueeze(0);
}

}  // namespace

Tensor AtenBackend::VisibilityMask(Context& ctx, const Tensor& order, const Tensor& limit, int repeat) const {
  const Tensor limits = repeat == 1 ? limit : limit.repeat_interleave(repeat, 1);
  return AdditiveMask(ctx, order.unsqueeze(1).le(limits.unsqueeze(2)));
}

Tensor AtenBackend::PaddingMask(Context& ctx, const Tensor& order) const {
  return AdditiveMask(ctx, order.le(kSeesAllOrders).unsqueeze(1));
}

// The packed rows as one sequence, in which each sees its own request's.
Tensor AtenBackend::SelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                  const TokenView& view) const {
  Tensor mask = view.mask;
  if (view.packing.packed()) mask = mask + AdditiveMask(ctx, OfOneRequest(view.packing).unsqueeze(0));
  const int64_t batch = mask.size(0), tokens = mask.size(3);
  const std::vector<Tensor> qkv = SelfProduct(ctx, x, w.qkv).view({batch, tokens, 3, w.heads, -1}).unbind(2);
  Tensor added = mask.expand({batch, 1, tokens, tokens});
  if (w.bias.table.defined()) added = added + BiasMatrix(ctx, w.bias, tokens, tokens);
  const Scores scores{.mask = added, .scale = w.scale, .dropout = w.inner_dropout};
  const Tensor attended = Attend(ctx, {qkv[0], qkv[1], qkv[2]}, scores);
  return SelfProduct(ctx, attended, w.out);
}

Tensor AtenBackend::CausalSelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                        int length) const {
  const std::vector<Tensor> qkv =
      SelfProduct(ctx, x, w.qkv).view({-1, length, 3, w.heads, w.out.size(1) / w.heads}).unbind(2);
  Scores scores{.causal = true, .scale = w.scale, .dropout = w.inner_dropout};
  if (w.bias.table.defined() || w.inner_dropout) {
    const Tensor later = at::ones({length, length}, x.options().dtype(at::kBool)).triu(1);
    const Tensor bias =
        w.bias.table.defined() ? BiasMatrix(ctx, w.bias, length, length) : at::zeros({length, length}, x.options());
    scores.mask = bias.masked_fill(later, -std::numeric_limits<double>::infinity());
    scores.causal = false;  // in the mask
  }
  const Tensor attended = Attend(ctx, {qkv[0], qkv[1], qkv[2]}, scores);
  return SelfProduct(ctx, attended, w.out);
}

Tensor AtenBackend::ContextKeyValue(Context& ctx, const Tensor& x, const CrossAttentionWeights& w,
                                    int64_t batch) const {
  return LayerProduct(ctx, x, w.key_value).view({batch, -1, w.key_value.size(0)});
}

Tensor AtenBackend::CrossAttention(Context& ctx, const Tensor& x, const CrossAttentionWeights& w,
                                   const ContextView& context) const {
  const int64_t batch = context.key_value.size(0), tokens = context.key_value.size(1);
  const int64_t head_dim = w.out.size(1) / w.heads;
  const Tensor query = LayerProduct(ctx, x, w.query).view({batch, -1, w.heads, head_dim});
  const Scores scores{
      .mask = context.mask.expand({batch, 1, query.size(1), tokens}), .scale = w.scale, .dropout = w.inner_dropout};
  const std::vector<Tensor> key_value = context.key_value.view({batch, tokens, 2, w.heads, head_dim}).unbind(2);
  const Tensor attended = Attend(ctx, {query, key_value[0], key_value[1]}, scores);
  return LayerProduct(ctx, attended, w.out);
}

Tensor AtenBackend::LineageAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                     const LineageStep& now) const {
  const int64_t inner = w.out.size(1), head_dim = inner / w.heads, rows = x.size(0);
  const Tensor qkv = SelfProduct(ctx, x, w.qkv).view({now.batch, -1, 3 * inner});
  const Tensor own = qkv.narrow(2, inner, 2 * inner);  // [batch, rows, 2 * inner]

  std::vector<Tensor> visible;  // per step taken, then the row itself
  for (size_t step = 0; step < now.cache.steps.size(); ++step) {
    const Tensor ancestor = now.lineage.select(2, static_cast<int64_t>(step)).unsqueeze(2).expand_as(own);
    visible.push_back(now.cache.steps[step].gather(1, ancestor));
  }
  visible.push_back(own);
  if (!now.last) now.cache.steps.push_back(own.contiguous());

  const int64_t steps = static_cast<int64_t>(visible.size());
  const std::vector<Tensor> key_value = at::stack(visible, 2).view({rows, steps, 2, w.heads, head_dim}).unbind(2);
  const Tensor query = qkv.narrow(2, 0, inner).reshape({rows, 1, w.heads, head_dim});
  Scores scores{.scale = w.scale};
  if (w.bias.table.defined()) scores.mask = BiasMatrix(ctx, w.bias, 1, steps);
  return SelfProduct(ctx, Attend(ctx, {query, key_value[0], key_value[1]}, scores), w.out);
}

}  // namespace beamline::backend
