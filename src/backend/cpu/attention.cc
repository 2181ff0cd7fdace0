// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/resources.h"
#include "beamline/kernels/relative_position.h"
#include "beamline/kernels/vector_ops.h"

namespace beamline::backend {
namespace {

constexpr int64_t kBlockRows = 64;  // of queries that go through a sublayer together

// Of weights with `heads`, `scale` and the output matrix `out`.
template <typename Weights>
kernels::AttentionShape Shape(const Weights& w) {
  const int64_t head_dim = w.out.size(1) / w.heads;
  const double scale = w.scale == 0 ? 1 / std::sqrt(static_cast<double>(head_dim)) : w.scale;
  return {w.heads, head_dim, static_cast<float>(scale)};
}

// [heads, distances from `first` up]: the bias of a query that stands `distance` behind its key.
Tensor BiasByDistance(Context& ctx, const RelativeBias& bias, int64_t first, int64_t distances) {
  const int64_t heads = bias.table.size(1);
  Tensor by_distance = Take(ctx, {heads, distances});
  float* to = by_distance.mutable_data_ptr<float>();
  for (int64_t i = 0; i < distances; ++i) {
    const int32_t bucket = kernels::RelativePositionBucket(static_cast<int32_t>(-(first + i)), bias.buckets);
    for (int64_t h = 0; h < heads; ++h) to[h * distances + i] = bias.table.const_data_ptr<float>()[bucket * heads + h];
  }
  return by_distance;
}

// Keys up to the last one that a query of `limit` sees: the padding behind it costs nothing.
int64_t TokensInUse(const int32_t* order, int64_t tokens, int32_t limit) {
  while (tokens > 1 && order[tokens - 1] > limit) --tokens;
  return tokens;
}

// The keys and values of a batch of sequences, and who sees what.
struct Keys {
  const float* key_value;  // [batch, tokens, step]; packed [1, rows, step]
  int64_t step;
  int64_t tokens;
  const int32_t* mask;  // [batch, tokens + groups]
  int64_t groups;
  absl::Span<const int32_t> begins = {}, counts = {};  // the requests' rows in the one sequence of a packing
  const float* bias = nullptr;                         // of distance 0, head 0
  int64_t bias_step = 0;
};

// Rows [begin, end) of the batch's queries, which stand at `query` (row `begin` first).
struct Queries {
  const float* query;
  int64_t query_step;
  int64_t begin, end;
  int64_t rows_each;  // of one sequence of the keys
  float* scratch;
};

// The queries and keys that belong together.
struct Sequence {
  int64_t first_query, queries;
  const float* key_value;
  int64_t tokens;
  const int32_t *order, *limit;
  int64_t repeat;  // queries that a limit is for
};

Sequence SequenceOf(const Keys& keys, int64_t rows_each, int64_t row) {
  const int64_t i = row / rows_each, repeat = rows_each / keys.groups;
  const int32_t* order = keys.mask + i * (keys.tokens + keys.groups);
  const float* key_value = keys.key_value + i * keys.tokens * keys.step;
  const int32_t* limit = order + keys.tokens;
  if (keys.begins.empty()) return {i * rows_each, rows_each, key_value, keys.tokens, order, limit, repeat};
  // The last that begins here or before: those without rows stand before it.
  const int64_t request = std::upper_bound(keys.begins.begin(), keys.begins.end(), row) - keys.begins.begin() - 1;
  const int64_t begin = keys.begins[request], count = keys.counts[request];
  return {begin, count, key_value + begin * keys.step, count, order + begin, limit + begin / repeat, repeat};
}

void Attend(const kernels::AttentionShape& shape, const Keys& keys, const Queries& queries, float* out) {
  for (int64_t row = queries.begin; row < queries.end;) {
    const Sequence own = SequenceOf(keys, queries.rows_each, row);
    const int64_t first = row - own.first_query, rows = std::min(queries.end - row, own.queries - first);
    if (rows <= 0) {  // nobody's, behind the last of a packing
      std::fill_n(out + (row - queries.begin) * shape.heads * shape.head_dim,
                  (queries.end - row) * shape.heads * shape.head_dim, 0.0f);
      return;
    }
    const int32_t widest =
        *std::max_element(own.limit + first / own.repeat, own.limit + (first + rows - 1) / own.repeat + 1);
    kernels::BestVectorOps().context_attention({.shape = shape,
                                                .query = queries.query + (row - queries.begin) * queries.query_step,
                                                .query_step = queries.query_step,
                                                .first_row = first,
                                                .rows = rows,
                                                .key_value = own.key_value,
                                                .key_value_step = keys.step,
                                                .tokens = TokensInUse(own.order, own.tokens, widest),
                                                .order = own.order,
                                                .limit = own.limit,
                                                .repeat = own.repeat,
                                                .bias = keys.bias,
                                                .bias_step = keys.bias_step,
                                                .scratch = queries.scratch,
                                                .out = out + (row - queries.begin) * shape.heads * shape.head_dim});
    row += rows;
  }
}

struct Rows {
  const float* x;
  int64_t count;
};

// y [rows, n] = x [rows, k] w
kernels::GemmArgs Product(const Rows& rows, const PackedWeight& w, float* y, float* scratch = nullptr) {
  return {.a = rows.x, .lda = w.k, .m = rows.count, .c = y, .ldc = w.n, .scratch = scratch};
}

double AttentionFlops(const kernels::AttentionShape& shape, int64_t tokens) {
  return 4.0 * static_cast<double>(shape.heads * shape.head_dim * tokens);
}

}  // namespace

Tensor CpuBackend::VisibilityMask(Context& ctx, const Tensor& order, const Tensor& limit, int repeat) const {
  const int64_t batch = order.size(0), tokens = order.size(1), groups = limit.size(1);
  Tensor mask = Take(ctx, {batch, tokens + groups}, c10::kInt);
  int32_t* to = mask.mutable_data_ptr<int32_t>();
  for (int64_t b = 0; b < batch; ++b) {
    to = std::copy_n(order.const_data_ptr<int32_t>() + b * tokens, tokens, to);
    to = std::copy_n(limit.const_data_ptr<int32_t>() + b * groups, groups, to);
  }
  return mask;
}

Tensor CpuBackend::PaddingMask(Context& ctx, const Tensor& order) const {
  const Tensor limit = Take(ctx, {order.size(0), 1}, c10::kInt);
  std::fill_n(limit.mutable_data_ptr<int32_t>(), order.size(0), kSeesAllOrders);
  return VisibilityMask(ctx, order, limit, 1);
}

Tensor CpuBackend::SelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                 const TokenView& view) const {
  const Tensor& mask = view.mask;
  const TokenPacking& packing = view.packing;
  const int64_t rows = x.size(0), rows_each = rows / mask.size(0), inner = w.out.size(1);
  const int64_t tokens = packing.packed() ? packing.tokens : rows_each;
  const kernels::AttentionShape shape = Shape(w);
  const Packed in = Pack(w.qkv), out = Pack(w.out);
  const Tensor qkv = Take(ctx, {rows, 3 * inner});
  const float* from = qkv.const_data_ptr<float>();
  Multiply(ctx, *in, Product({x.const_data_ptr<float>(), rows}, *in, qkv.mutable_data_ptr<float>()));

  Keys keys{from + inner, 3 * inner, rows_each, mask.const_data_ptr<int32_t>(), mask.size(1) - rows_each};
  if (packing.packed()) {
    const absl::Span<const int32_t> bounds(packing.bounds.const_data_ptr<int32_t>(), packing.bounds.numel());
    keys.begins = bounds.subspan(0, bounds.size() / 2);
    keys.counts = bounds.subspan(bounds.size() / 2);
  }
  Tensor bias;
  if (w.bias.table.defined()) {
    bias = BiasByDistance(ctx, w.bias, 1 - tokens, 2 * tokens + 16);
    keys.bias = bias.const_data_ptr<float>() + tokens - 1;
    keys.bias_step = bias.size(1);
  }
  Tensor y = Take(ctx, x.sizes());
  float* to = y.mutable_data_ptr<float>();
  const int64_t scratch_floats =
      std::max(kernels::ContextAttentionScratch(tokens, shape.head_dim), out->ScratchFloats(kBlockRows));
  ForRowBlocks(ctx,
               {.rows = rows,
                .block = kBlockRows,
                .flops_per_row = AttentionFlops(shape, tokens) + out->flops_per_row(),
                .scratch_floats = kBlockRows * inner + scratch_floats},
               [&](int64_t begin, int64_t end, float* attended) {
                 float* scratch = attended + kBlockRows * inner;
                 Attend(shape, keys, {from + begin * 3 * inner, 3 * inner, begin, end, rows_each, scratch}, attended);
                 out->Run(Product({attended, end - begin}, *out, to + begin * out->n, scratch));
               });
  return y;
}

Tensor CpuBackend::CausalSelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, int length) const {
  const int64_t groups = x.size(0) / length;
  const Tensor place = Take(ctx, {groups, length}, c10::kInt);
  for (int64_t i = 0; i < x.size(0); ++i) place.mutable_data_ptr<int32_t>()[i] = static_cast<int32_t>(i % length);
  return SelfAttention(ctx, x, w, {VisibilityMask(ctx, place, place, 1)});
}

Tensor CpuBackend::ContextKeyValue(Context& ctx, const Tensor& x, const CrossAttentionWeights& w, int64_t batch) const {
  const Packed packed = Pack(w.key_value);
  Tensor y = Take(ctx, {batch, x.size(0) / batch, packed->n});
  Multiply(ctx, *packed, Product({x.const_data_ptr<float>(), x.size(0)}, *packed, y.mutable_data_ptr<float>()));
  return y;
}

Tensor CpuBackend::CrossAttention(Context& ctx, const Tensor& x, const CrossAttentionWeights& w,
                                  const ContextView& context) const {
  const Tensor &key_value = context.key_value, &mask = context.mask;
  const int64_t batch = key_value.size(0), tokens = key_value.size(1), rows = x.size(0), inner = w.out.size(1);
  const kernels::AttentionShape shape = Shape(w);
  const Packed in = Pack(w.query), out = Pack(w.out);
  const Keys keys{key_value.const_data_ptr<float>(), 2 * inner, tokens, mask.const_data_ptr<int32_t>(),
                  mask.size(1) - tokens};
  Tensor y = Take(ctx, x.sizes());
  const float* from = x.const_data_ptr<float>();
  float* to = y.mutable_data_ptr<float>();
  const int64_t scratch_floats = std::max({kernels::ContextAttentionScratch(tokens, shape.head_dim),
                                           in->ScratchFloats(kBlockRows), out->ScratchFloats(kBlockRows)});
  ForRowBlocks(ctx,
               {.rows = rows,
                .block = kBlockRows,
                .flops_per_row = AttentionFlops(shape, tokens) + in->flops_per_row() + out->flops_per_row(),
                .scratch_floats = 2 * kBlockRows * inner + scratch_floats},
               [&](int64_t begin, int64_t end, float* query) {
                 float* attended = query + kBlockRows * inner;
                 float* scratch = attended + kBlockRows * inner;
                 in->Run(Product({from + begin * in->k, end - begin}, *in, query, scratch));
                 Attend(shape, keys, {query, inner, begin, end, rows / batch, scratch}, attended);
                 out->Run(Product({attended, end - begin}, *out, to + begin * out->n, scratch));
               });
  return y;
}

Tensor CpuBackend::LineageAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w,
                                    const LineageStep& now) const {
  const int64_t rows = x.size(0), rows_each = rows / now.batch, inner = w.out.size(1);
  const int steps = static_cast<int>(now.cache.steps.size());
  TORCH_CHECK(steps <= kernels::kMaxLineageSteps, "lineage: more steps than ", kernels::kMaxLineageSteps);
  const kernels::AttentionShape shape = Shape(w);
  const Packed query = PackRows(w.qkv, 0, inner), key_value = PackRows(w.qkv, inner, 2 * inner), out = Pack(w.out);
  Tensor bias;  // [heads, steps + 1], the oldest step first
  if (w.bias.table.defined()) {
    const Tensor newest_first = BiasByDistance(ctx, w.bias, 0, steps + 1);
    bias = Take(ctx, newest_first.sizes());
    for (int64_t h = 0; h < w.heads; ++h) {
      std::reverse_copy(newest_first.const_data_ptr<float>() + h * (steps + 1),
                        newest_first.const_data_ptr<float>() + (h + 1) * (steps + 1),
                        bias.mutable_data_ptr<float>() + h * (steps + 1));
    }
  }
  const Tensor own = Take(ctx, {now.batch, rows_each, 2 * inner});
  Tensor y = Take(ctx, x.sizes());
  const float* from = x.const_data_ptr<float>();
  float* const own_rows = own.mutable_data_ptr<float>();
  const int64_t scratch_floats = std::max(
      {query->ScratchFloats(kBlockRows), key_value->ScratchFloats(kBlockRows), out->ScratchFloats(kBlockRows)});
  float* const to = y.mutable_data_ptr<float>();
  ForRowBlocks(ctx,
               {.rows = rows,
                .block = kBlockRows,
                .flops_per_row = query->flops_per_row() + key_value->flops_per_row() + out->flops_per_row(),
                .scratch_floats = 2 * kBlockRows * inner + scratch_floats},
               [&](int64_t begin, int64_t end, float* queries) {
                 float* attended = queries + kBlockRows * inner;
                 float* scratch = attended + kBlockRows * inner;
                 query->Run(Product({from + begin * query->k, end - begin}, *query, queries, scratch));
                 key_value->Run(Product({from + begin * query->k, end - begin}, *key_value,
                                        own_rows + begin * 2 * inner, scratch));
                 for (int64_t row = begin; row < end;) {
                   const int64_t sequence = row / rows_each;
                   const int64_t count = std::min(end, (sequence + 1) * rows_each) - row;
                   const float* past[kernels::kMaxLineageSteps];
                   for (int step = 0; step < steps; ++step) {
                     const Tensor& taken = now.cache.steps[step];
                     past[step] = taken.const_data_ptr<float>() + sequence * taken.size(1) * 2 * inner;
                   }
                   kernels::BestVectorOps().lineage_attention(
                       {.shape = shape,
                        .query = queries + (row - begin) * inner,
                        .own = own_rows + row * 2 * inner,
                        .rows = count,
                        .steps = steps,
                        .past = past,
                        .lineage = steps == 0 ? nullptr : now.lineage.const_data_ptr<int32_t>() + row * steps,
                        .bias = bias.defined() ? bias.const_data_ptr<float>() : nullptr,
                        .out = attended + (row - begin) * inner});
                   row += count;
                 }
                 out->Run(Product({attended, end - begin}, *out, to + begin * out->n, scratch));
               });
  if (!now.last) now.cache.steps.push_back(own);
  return y;
}

}  // namespace beamline::backend
