// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/resources.h"
#include "beamline/kernels/moe_cuda.h"
#include "beamline/kernels/vector_ops.h"

namespace beamline::backend {
namespace {

constexpr int64_t kHiddenFloats = 64 << 10;  // of a feed-forward's hidden rows that stay in the second cache level

kernels::RowActivation KernelActivation(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return kernels::RowActivation::kNone;
    case Activation::kRelu:
      return kernels::RowActivation::kRelu;
    case Activation::kGelu:
      return kernels::RowActivation::kGelu;
    case Activation::kGeluTanh:
      return kernels::RowActivation::kGeluTanh;
    case Activation::kSilu:
      return kernels::RowActivation::kSilu;
    case Activation::kLeakyRelu:
      return kernels::RowActivation::kLeakyRelu;
  }
  return kernels::RowActivation::kNone;
}

// Floats between rows of logits: whole cache lines, an odd number of them, so that a column of panels spreads over all
// sets of the caches. (A wide head is written a tenth faster.)
int64_t LogitStep(int64_t vocab) { return (kernels::PanelCount(vocab) | 1) * kernels::kPanel; }

int64_t BlockRows(int64_t floats_per_row) {
  return std::clamp<int64_t>(kHiddenFloats / std::max<int64_t>(1, floats_per_row), 24, 192);
}

}  // namespace

void CpuBackend::Multiply(Context& ctx, const PackedWeight& w, const kernels::GemmArgs& args) const {
  RowLoop loop{
      .rows = args.m, .block = args.m, .flops_per_row = w.flops_per_row(), .scratch_floats = w.ScratchFloats(args.m)};
  if (args.m >= kRowsToSplit) {
    ForRowBlocks(ctx, loop, [&](int64_t begin, int64_t end, float* scratch) {
      kernels::GemmArgs part = args;
      part.a += begin * args.lda;
      part.c += begin * args.ldc;
      part.m = end - begin;
      part.scratch = scratch;
      w.Run(part);
    });
    return;
  }
  // Few rows: threads share the columns.
  loop.rows = loop.block = kernels::PanelCount(w.n);
  loop.flops_per_row *= static_cast<double>(args.m) / static_cast<double>(loop.rows);
  ForRowBlocks(ctx, loop, [&](int64_t begin, int64_t end, float* scratch) {
    kernels::GemmArgs part = args;
    part.panel_begin = begin;
    part.panel_end = end;
    part.scratch = scratch;
    w.Run(part);
  });
}

Tensor CpuBackend::Dense(Context& ctx, const Tensor& x, const DenseWeights& w, Activation activation) const {
  const Packed packed = packed_.Get(w.weight, {.rows = w.weight.size(0)});  // fp32
  Tensor y = Take(ctx, {x.size(0), packed->n});
  Multiply(ctx, *packed,
           {.a = x.const_data_ptr<float>(),
            .lda = x.size(1),
            .m = x.size(0),
            .bias = w.bias.defined() ? w.bias.const_data_ptr<float>() : nullptr,
            .activation = KernelActivation(activation),
            .c = y.mutable_data_ptr<float>(),
            .ldc = packed->n});
  return y;
}

Tensor CpuBackend::LevelHead(Context& ctx, const Tensor& x, const HeadWeights& head, const LevelRows& of) const {
  const Packed packed = Pack(head.weight);
  const int64_t rows = x.size(0) / of.levels, d = x.size(1);
  kernels::GemmArgs args{.a = x.const_data_ptr<float>() + of.level * d,
                         .lda = of.levels * d,
                         .m = rows,
                         .bias = head.bias.defined() ? head.bias.const_data_ptr<float>() : nullptr};
  Tensor scaled;
  if (head.scale != 1) {
    scaled = Take(ctx, {rows, d});
    float* to = scaled.mutable_data_ptr<float>();
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = 0; i < d; ++i) *to++ = args.a[row * args.lda + i] * static_cast<float>(head.scale);
    }
    args.a = scaled.const_data_ptr<float>();
    args.lda = d;
  }
  const Tensor logits = Take(ctx, {of.batch, rows / of.batch, LogitStep(packed->n)});
  args.c = logits.mutable_data_ptr<float>();
  args.ldc = logits.size(2);
  Multiply(ctx, *packed, args);
  return logits.narrow(2, 0, packed->n);
}

void CpuBackend::RunFeedForward(Context& ctx, const Tensor& x, const FeedForwardShape& ffn, float* y) const {
  const PackedWeight &up = *ffn.up, &down = *ffn.down;
  const float* from = x.const_data_ptr<float>();
  if (x.size(0) < kRowsToSplit) {  // threads share the columns: one product after the other
    const Tensor hidden = Take(ctx, {x.size(0), up.n});
    Multiply(ctx, up,
             {.a = from,
              .lda = up.k,
              .m = x.size(0),
              .activation = ffn.activation,
              .c = hidden.mutable_data_ptr<float>(),
              .ldc = up.n});
    Multiply(ctx, down, {.a = hidden.const_data_ptr<float>(), .lda = up.n, .m = x.size(0), .c = y, .ldc = down.n});
    return;
  }
  const int64_t block = BlockRows(up.n), hidden_floats = (block * up.n + 15) / 16 * 16;
  ForRowBlocks(
      ctx,
      {.rows = x.size(0),
       .block = block,
       .flops_per_row = up.flops_per_row() + down.flops_per_row(),
       .scratch_floats = hidden_floats + std::max(up.ScratchFloats(block), down.ScratchFloats(block))},
      [&](int64_t begin, int64_t end, float* hidden) {
        float* const scratch = hidden + hidden_floats;
        up.Run({.a = from + begin * up.k,
                .lda = up.k,
                .m = end - begin,
                .activation = ffn.activation,
                .c = hidden,
                .ldc = up.n,
                .scratch = scratch});
        down.Run(
            {.a = hidden, .lda = up.n, .m = end - begin, .c = y + begin * down.n, .ldc = down.n, .scratch = scratch});
      });
}

Tensor CpuBackend::FeedForward(Context& ctx, const Tensor& x, const FeedForwardWeights& w) const {
  Tensor y = Take(ctx, x.sizes());
  RunFeedForward(ctx, x, {Pack(w.up, w.gated), Pack(w.down), KernelActivation(w.activation)},
                 y.mutable_data_ptr<float>());
  return y;
}

Tensor CpuBackend::RmsNorm(Context& ctx, const Tensor& x, const Tensor& weight, double epsilon) const {
  Tensor y = Take(ctx, x.sizes());
  kernels::BestVectorOps().rms_norm({.rows = x.size(0),
                                     .d = x.size(1),
                                     .x = x.const_data_ptr<float>(),
                                     .weight = weight.const_data_ptr<float>(),
                                     .epsilon = static_cast<float>(epsilon),
                                     .y = y.mutable_data_ptr<float>()});
  return y;
}

Tensor CpuBackend::Residual(Context& ctx, const Tensor& x, const Tensor& delta) const {
  Tensor y = Take(ctx, x.sizes());
  kernels::BestVectorOps().add(x.const_data_ptr<float>(), delta.const_data_ptr<float>(), x.numel(),
                               y.mutable_data_ptr<float>());
  return y;
}

Tensor CpuBackend::GatedFusion(Context& ctx, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) const {
  const int64_t rows = trunk.size(0), d = trunk.size(1);
  const Tensor both = Take(ctx, {rows, 2 * d});
  float* to = both.mutable_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row, to += 2 * d) {
    std::copy_n(trunk.const_data_ptr<float>() + row * d, d, to);
    std::copy_n(code.const_data_ptr<float>() + row * d, d, to + d);
  }
  const Tensor opened = Dense(ctx, both, gate, Activation::kNone);
  Tensor y = Take(ctx, trunk.sizes());
  kernels::BestVectorOps().add_gated({.count = trunk.numel(),
                                      .a = trunk.const_data_ptr<float>(),
                                      .gate = opened.const_data_ptr<float>(),
                                      .b = code.const_data_ptr<float>(),
                                      .out = y.mutable_data_ptr<float>()});
  return y;
}

namespace {

// The experts of every row, best first, and their weights, which sum to 1. Both [rows, top_k].
struct Routing {
  Tensor experts;  // int32
  Tensor weights;
};

Routing Route(Context& ctx, const Tensor& gate_logits, const Tensor& bias, int top_k) {
  const int64_t rows = gate_logits.size(0), experts = gate_logits.size(1);
  Routing routing{Take(ctx, {rows, top_k}, c10::kInt), Take(ctx, {rows, top_k})};
  int32_t* chosen = routing.experts.mutable_data_ptr<int32_t>();
  float* weights = routing.weights.mutable_data_ptr<float>();
  const Tensor scores = Take(ctx, {experts}), orders = Take(ctx, {experts}, c10::kInt);
  float* score = scores.mutable_data_ptr<float>();
  int32_t* order = orders.mutable_data_ptr<int32_t>();
  const float* moved = bias.const_data_ptr<float>();
  for (int64_t row = 0; row < rows; ++row, chosen += top_k, weights += top_k) {
    const float* logits = gate_logits.const_data_ptr<float>() + row * experts;
    for (int64_t e = 0; e < experts; ++e) score[e] = 1 / (1 + std::exp(-logits[e]));
    std::iota(order, order + experts, 0);
    std::partial_sort(order, order + top_k, order + experts, [&](int32_t a, int32_t b) {
      const float left = score[a] + moved[a], right = score[b] + moved[b];
      return left > right || (left == right && a < b);
    });
    std::copy_n(order, top_k, chosen);
    float sum = 0;
    for (int i = 0; i < top_k; ++i) sum += score[order[i]];
    for (int i = 0; i < top_k; ++i) weights[i] = score[order[i]] / (sum + kernels::kMoeSumFloor);
  }
  return routing;
}

}  // namespace

// Rows of one expert stand together while it runs; each row then adds its own results, best expert first.
Tensor CpuBackend::MoeFeedForward(Context& ctx, const Tensor& x, const MoeWeights& w) const {
  const int64_t rows = x.size(0), d = x.size(1), experts = w.gate.size(0), slots = rows * w.top_k;
  const Routing routing = Route(ctx, Dense(ctx, x, {.weight = w.gate, .bias = {}}, Activation::kNone), w.bias, w.top_k);
  const int32_t* chosen = routing.experts.const_data_ptr<int32_t>();
  const Tensor counts = Take(ctx, {2 * experts + slots}, c10::kLong);
  int64_t* tokens = counts.mutable_data_ptr<int64_t>();  // of an expert
  int64_t* next = tokens + experts;
  int64_t* place = next + experts;  // of a slot among the rows grouped by expert
  std::fill_n(tokens, 2 * experts, int64_t{0});
  for (int64_t slot = 0; slot < slots; ++slot) ++tokens[chosen[slot]];
  if (ctx.expert_loads != nullptr)
    ctx.expert_loads->push_back({w.layer, std::vector<int64_t>(tokens, tokens + experts)});
  for (int64_t e = 1; e < experts; ++e) next[e] = next[e - 1] + tokens[e - 1];
  const Tensor grouped = Take(ctx, {slots, d}), results = Take(ctx, {slots, d});
  float* to = grouped.mutable_data_ptr<float>();
  for (int64_t slot = 0; slot < slots; ++slot) {
    place[slot] = next[chosen[slot]]++;
    std::copy_n(x.const_data_ptr<float>() + slot / w.top_k * d, d, to + place[slot] * d);
  }
  for (int64_t e = 0, begin = 0; e < experts; begin += tokens[e++]) {
    if (tokens[e] == 0) continue;
    const int64_t width = w.down.size(2);
    const FeedForwardShape ffn{PackRows(w.up, e * 2 * width, 2 * width, /*gated=*/true), PackRows(w.down, e * d, d),
                               kernels::RowActivation::kSilu};
    RunFeedForward(ctx, grouped.narrow(0, begin, tokens[e]), ffn, results.mutable_data_ptr<float>() + begin * d);
  }
  Tensor y = Take(ctx, x.sizes());
  float* out = y.mutable_data_ptr<float>();
  std::fill_n(out, y.numel(), 0.0f);
  for (int64_t slot = 0; slot < slots; ++slot) {
    kernels::BestVectorOps().add_scaled(results.const_data_ptr<float>() + place[slot] * d,
                                        routing.weights.const_data_ptr<float>()[slot], d, out + slot / w.top_k * d);
  }
  if (!w.shared_up.defined()) return y;
  const Tensor shared = Take(ctx, x.sizes());
  RunFeedForward(ctx, x, {Pack(w.shared_up, /*gated=*/true), Pack(w.shared_down), kernels::RowActivation::kSilu},
                 shared.mutable_data_ptr<float>());
  return Residual(ctx, y, shared);
}

}  // namespace beamline::backend
