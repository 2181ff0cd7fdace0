// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "backend/cuda/cuda_backend.h"
#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/lineage_attention_cuda.h"
#include "beamline/kernels/state_cuda.h"

namespace beamline::backend::cuda {
namespace {

static_assert(kernels::kHiddenOrder == kPaddingOrder);

template <typename Weights>
float ScoreScale(const Weights& w) {
  const double head_dim = static_cast<double>(w.out.size(1)) / w.heads;
  return static_cast<float>(w.scale == 0 ? 1 / std::sqrt(head_dim) : w.scale);
}

template <typename Weights>
int32_t HeadDim(const Weights& w) {
  const int64_t head_dim = w.out.size(1) / w.heads;
  TORCH_CHECK(head_dim % 8 == 0 && head_dim <= kernels::kMaxHeadDim, "cuda: heads of ", head_dim,
              " columns; multiples of 8 up to ", kernels::kMaxHeadDim);
  return static_cast<int32_t>(head_dim);
}

// Rows of `step` elements, from the given column on.
struct Columns {
  kernels::DataType type;
  void* data;
  int64_t step;
};
Columns ColumnsOf(const Tensor& x, int64_t column) {
  return {KernelType(x.scalar_type()),
          static_cast<char*>(x.mutable_data_ptr()) + column * static_cast<int64_t>(x.itemsize()), x.size(-1)};
}

// Every query row gets its answer where it stood.
template <typename Weights>
kernels::AttentionBatch InPlace(const Weights& w, const Columns& query, const Tensor& mask, int64_t tokens) {
  const int64_t batch = mask.size(0), groups = mask.size(1) - tokens - 1;
  const int32_t* parts = mask.const_data_ptr<int32_t>();
  kernels::AttentionBatch attention;
  attention.type = query.type;
  attention.heads = attention.key_value_heads = w.heads;
  attention.head_dim = HeadDim(w);
  attention.scale = ScoreScale(w);
  attention.query = query.data;
  attention.out = query.data;
  attention.query_step = attention.out_step = query.step;
  attention.requests = static_cast<int32_t>(batch);
  attention.max_keys = static_cast<int32_t>(tokens);
  attention.key_order = parts;
  attention.query_limit = parts + batch * tokens;
  attention.key_count = parts + batch * (tokens + groups);
  return attention;
}

// The one sequence of packed rows becomes its requests'.
void OfRequests(const TokenPacking& packing, kernels::AttentionBatch& attention) {
  const int64_t requests = packing.bounds.size(1);
  const int32_t* bounds = packing.bounds.const_data_ptr<int32_t>();
  attention.requests = static_cast<int32_t>(requests);
  attention.max_queries = attention.max_keys = static_cast<int32_t>(packing.tokens);
  attention.query_begin = attention.key_begin = bounds;
  attention.query_count = attention.key_count = bounds + requests;
}

}  // namespace

Tensor CudaBackend::Mask(Context& ctx, const Tensor& order, const Tensor& limit, int64_t groups) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t requests = order.size(0), tokens = order.size(1);
  Tensor mask = batch.Take({requests, tokens + groups + 1}, c10::kInt);
  Check(kernels::VisibilityCuda({.requests = static_cast<int32_t>(requests),
                                 .tokens = static_cast<int32_t>(tokens),
                                 .groups = static_cast<int32_t>(groups),
                                 .order = order.const_data_ptr<int32_t>(),
                                 .limit = limit.defined() ? limit.const_data_ptr<int32_t>() : nullptr,
                                 .out = mask.mutable_data_ptr<int32_t>()},
                                batch.stream()),
        "a mask");
  return mask;
}

// `repeat` is what the rows of the attention make of the groups.
Tensor CudaBackend::VisibilityMask(Context& ctx, const Tensor& order, const Tensor& limit, int repeat) const {
  return Mask(ctx, order, limit, limit.size(1));
}

Tensor CudaBackend::PaddingMask(Context& ctx, const Tensor& order) const { return Mask(ctx, order, {}, 1); }

CudaBackend::BiasByDistance CudaBackend::BiasOf(Context& ctx, const RelativeBias& bias) const {
  if (!bias.table.defined()) return {};
  const void* key = bias.table.const_data_ptr();
  {
    const std::lock_guard<std::mutex> lock(bias_mu_);
    const auto found = biases_.find(key);
    if (found != biases_.end() && !found->second.table.expired()) return found->second.bias;
  }
  const int64_t heads = bias.table.size(1), reach = bias.buckets.max_distance, width = 2 * reach + 1;
  const std::vector<float> table = DownloadFloats(ctx, bias.table);
  const auto value = [&](int64_t head, int64_t distance) {  // of the key behind the query
    return table[kernels::RelativePositionBucket(static_cast<int32_t>(distance), bias.buckets) * heads + head];
  };
  std::vector<float> context(heads * width), lineage(heads * kernels::kMaxSteps);
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t i = 0; i < width; ++i) context[h * width + i] = value(h, i - reach);
    for (int64_t i = 0; i < kernels::kMaxSteps; ++i) lineage[h * kernels::kMaxSteps + i] = value(h, -i);
  }
  Context outside = ctx;  // kept for later batches
  outside.resources = nullptr;
  BiasByDistance made{static_cast<int32_t>(reach), UploadFloats(outside, context, {heads, width}),
                      UploadFloats(outside, lineage, {heads, kernels::kMaxSteps})};
  const std::lock_guard<std::mutex> lock(bias_mu_);
  absl::erase_if(biases_, [](const auto& kept) { return kept.second.table.expired(); });
  // Of another thread's that came first, which a graph may hold already, nothing is replaced.
  return biases_.try_emplace(key, KeptBias{bias.table.storage().getWeakStorageImpl(), made}).first->second.bias;
}

Tensor CudaBackend::AttendToSelf(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                 const TokenView& view) const {
  const Tensor& mask = view.mask;
  const int64_t batch = mask.size(0), rows = x.size(0), tokens = rows / batch, inner = w.out.size(1);
  const BiasByDistance bias = BiasOf(ctx, w.bias);
  const Tensor qkv = BatchOf(ctx).Take({rows, 3 * inner}, ctx.dtype);
  SelfProduct(ctx, {x.const_data_ptr(), rows, x.size(1)}, w.qkv, qkv);
  kernels::AttentionBatch attention = InPlace(w, ColumnsOf(qkv, 0), mask, tokens);
  attention.max_queries = static_cast<int32_t>(tokens);
  attention.limit_repeat = static_cast<int32_t>(tokens / (mask.size(1) - tokens - 1));
  if (view.packing.packed()) OfRequests(view.packing, attention);
  attention.key = ColumnsOf(qkv, inner).data;
  attention.value = ColumnsOf(qkv, 2 * inner).data;
  attention.key_value_step = 3 * inner;
  if (bias.context.defined()) {
    attention.relative_bias = bias.context.const_data_ptr<float>();
    attention.reach = bias.reach;
  }
  attention.warpgroups = warpgroups_;
  Check(kernels::AttentionCuda(attention, BatchOf(ctx).stream()), "self-attention");
  Tensor y = BatchOf(ctx).Take({rows, w.out.size(0)}, ctx.dtype);
  SelfProduct(ctx, {qkv.const_data_ptr(), rows, 3 * inner}, w.out, y);
  return y;
}

Tensor CudaBackend::SelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                  const TokenView& view) const {
  return AttendToSelf(ctx, x, w, view);
}

Tensor CudaBackend::CausalSelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                        int length) const {
  CudaBatch& batch = BatchOf(ctx);
  const int64_t groups = x.size(0) / length;
  const Tensor mask = batch.Take({groups, 2 * int64_t{length} + 1}, c10::kInt);
  Check(kernels::VisibilityCuda({.requests = static_cast<int32_t>(groups),
                                 .tokens = length,
                                 .groups = length,
                                 .own_order = true,
                                 .out = mask.mutable_data_ptr<int32_t>()},
                                batch.stream()),
        "a mask");
  return AttendToSelf(ctx, x, w, {mask});
}

Tensor CudaBackend::ContextKeyValue(Context& ctx, const Tensor& x, const CrossAttentionWeights& w,
                                    int64_t batch) const {
  const Tensor y = BatchOf(ctx).Take({batch, x.size(0) / batch, w.key_value.size(0)}, ctx.dtype);
  LayerProduct(ctx, {x.const_data_ptr(), x.size(0), x.size(1)}, w.key_value, y);
  return y;
}

Tensor CudaBackend::CrossAttention(Context& ctx, const Tensor& x, const CrossAttentionWeights& w,
                                   const ContextView& context) const {
  const Tensor &key_value = context.key_value, &mask = context.mask;
  const int64_t batch = key_value.size(0), tokens = key_value.size(1), rows = x.size(0), inner = w.out.size(1);
  const Tensor query = LayerProduct(ctx, x, w.query);  // [rows, inner]
  kernels::AttentionBatch attention = InPlace(w, ColumnsOf(query, 0), mask, tokens);
  attention.max_queries = static_cast<int32_t>(rows / batch);
  attention.limit_repeat = static_cast<int32_t>(rows / batch / (mask.size(1) - tokens - 1));
  attention.key = key_value.const_data_ptr();
  attention.value = ColumnsOf(key_value, inner).data;
  attention.key_value_step = 2 * inner;
  attention.warpgroups = warpgroups_;
  Check(kernels::AttentionCuda(attention, BatchOf(ctx).stream()), "cross-attention");
  return LayerProduct(ctx, query, w.out);
}

// The product of queries, keys and values stays as the step's cache; the answers take the place of the queries.
Tensor CudaBackend::LineageAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                     const LineageStep& now) const {
  const int64_t rows = x.size(0), inner = w.out.size(1);
  const Tensor own = BatchOf(ctx).Take({now.batch, rows / now.batch, 3 * inner}, ctx.dtype);
  SelfProduct(ctx, {x.const_data_ptr(), rows, x.size(1)}, w.qkv, own);
  // A first step's rows have one key, of weight 1: what attention would give is their value.
  const bool first = now.cache.steps.empty();
  if (!first) AttendToLineage(ctx, own, w, now);
  Tensor y = BatchOf(ctx).Take({rows, w.out.size(0)}, ctx.dtype);
  SelfProduct(ctx, {ColumnsOf(own, first ? 2 * inner : 0).data, rows, 3 * inner}, w.out, y);
  if (!now.last) now.cache.steps.push_back(own);
  return y;
}

void CudaBackend::AttendToLineage(Context& ctx, const Tensor& own, const SelfAttentionWeights& w,
                                  const LineageStep& now) const {
  const int64_t rows = own.size(0) * own.size(1), inner = w.out.size(1);
  const size_t step = now.cache.steps.size();
  TORCH_CHECK(step < kernels::kMaxSteps, "cuda: more steps than ", kernels::kMaxSteps);
  const BiasByDistance bias = BiasOf(ctx, w.bias);
  kernels::LineageAttentionBatch attention;
  attention.type = KernelType(ctx.dtype);
  attention.heads = attention.key_value_heads = w.heads;
  attention.head_dim = HeadDim(w);
  attention.scale = ScoreScale(w);
  attention.step = static_cast<int32_t>(step);
  attention.requests = static_cast<int32_t>(now.batch);
  attention.rows = static_cast<int32_t>(rows);
  attention.lineage = now.lineage.defined() ? now.lineage.const_data_ptr<int32_t>() : nullptr;
  attention.query = own.const_data_ptr();
  attention.out = own.mutable_data_ptr();
  attention.query_step = attention.out_step = attention.key_value_step = 3 * inner;
  for (size_t s = 0; s <= step; ++s) {
    const Tensor& taken = s == step ? own : now.cache.steps[s];
    attention.rows_each[s] = static_cast<int32_t>(taken.size(1));
    attention.key[s] = ColumnsOf(taken, inner).data;
    attention.value[s] = ColumnsOf(taken, 2 * inner).data;
  }
  if (bias.lineage.defined()) attention.bias = bias.lineage.const_data_ptr<float>();
  Check(kernels::LineageAttentionCuda(attention, BatchOf(ctx).stream()), "self-attention over a lineage");
}

}  // namespace beamline::backend::cuda
