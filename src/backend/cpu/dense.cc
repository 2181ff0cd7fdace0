// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "backend/cpu/cpu_backend.h"
#include "backend/cpu/resources.h"
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

int64_t BlockRows(int64_t floats_per_row) {
  return std::clamp<int64_t>(kHiddenFloats / std::max<int64_t>(1, floats_per_row), 24, 192);
}

double Flops(const PackedWeight& w) { return 2.0 * static_cast<double>(w.n * w.k) * (w.gated ? 2 : 1); }

void Gemm(const float* x, int64_t rows, const PackedWeight& w, kernels::RowActivation activation, float* y) {
  kernels::BestVectorOps().gemm({.a = x,
                                 .lda = w.k,
                                 .m = rows,
                                 .k = w.k,
                                 .b = w.panels.const_data_ptr<float>(),
                                 .gated = w.gated,
                                 .n = w.n,
                                 .activation = activation,
                                 .c = y,
                                 .ldc = w.n,
                                 .panel_begin = 0,
                                 .panel_end = kernels::PanelCount(w.n)});
}

}  // namespace

void CpuBackend::Multiply(Context& ctx, const PackedWeight& w, kernels::GemmArgs args) const {
  args.b = w.panels.const_data_ptr<float>();
  args.k = w.k;
  args.n = w.n;
  args.gated = w.gated;
  const kernels::VectorOps& ops = kernels::BestVectorOps();
  if (args.m >= kRowsToSplit) {
    ForRowBlocks(ctx, {.rows = args.m, .block = args.m, .flops_per_row = Flops(w)},
                 [&](int64_t begin, int64_t end, float*) {
                   kernels::GemmArgs part = args;
                   part.a += begin * args.lda;
                   part.c += begin * args.ldc;
                   part.m = end - begin;
                   part.panel_end = kernels::PanelCount(w.n);
                   ops.gemm(part);
                 });
    return;
  }
  // Few rows: threads share the columns.
  const int64_t panels = kernels::PanelCount(w.n);
  const double flops = Flops(w) * static_cast<double>(args.m) / static_cast<double>(panels);
  ForRowBlocks(ctx, {.rows = panels, .block = panels, .flops_per_row = flops}, [&](int64_t begin, int64_t end, float*) {
    kernels::GemmArgs part = args;
    part.panel_begin = begin;
    part.panel_end = end;
    ops.gemm(part);
  });
}

Tensor CpuBackend::Dense(Context& ctx, const Tensor& x, const DenseWeights& w, Activation activation) const {
  const Packed packed = Pack(w.weight);
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

Tensor CpuBackend::LevelHead(Context& ctx, const Tensor& x, const HeadWeights& head, int levels, int level,
                             int64_t batch) const {
  const Packed packed = Pack(head.weight);
  const int64_t rows = x.size(0) / levels, d = x.size(1);
  kernels::GemmArgs args{.a = x.const_data_ptr<float>() + level * d,
                         .lda = levels * d,
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
  Tensor logits = Take(ctx, {batch, rows / batch, packed->n});
  args.c = logits.mutable_data_ptr<float>();
  args.ldc = packed->n;
  Multiply(ctx, *packed, args);
  return logits;
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
  const int64_t block = BlockRows(up.n);
  ForRowBlocks(
      ctx,
      {.rows = x.size(0), .block = block, .flops_per_row = Flops(up) + Flops(down), .scratch_floats = block * up.n},
      [&](int64_t begin, int64_t end, float* hidden) {
        Gemm(from + begin * up.k, end - begin, up, ffn.activation, hidden);
        Gemm(hidden, end - begin, down, kernels::RowActivation::kNone, y + begin * down.n);
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
  kernels::BestVectorOps().rms_norm(x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                                    static_cast<float>(epsilon), x.size(0), x.size(1), y.mutable_data_ptr<float>());
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
  kernels::BestVectorOps().add_gated(trunk.const_data_ptr<float>(), opened.const_data_ptr<float>(),
                                     code.const_data_ptr<float>(), trunk.numel(), y.mutable_data_ptr<float>());
  return y;
}

namespace {

// The experts of every row, best first, and their weights.
struct Routing {
  std::vector<int> experts;    // [rows, top_k]
  std::vector<float> weights;  // [rows, top_k], summing to 1
};

Routing Route(const Tensor& gate_logits, const Tensor& bias, int top_k) {
  const int64_t rows = gate_logits.size(0), experts = gate_logits.size(1);
  Routing routing;
  std::vector<float> score(experts);
  std::vector<int> order(experts);
  for (int64_t row = 0; row < rows; ++row) {
    const float* logits = gate_logits.const_data_ptr<float>() + row * experts;
    for (int64_t e = 0; e < experts; ++e) score[e] = 1 / (1 + std::exp(-logits[e]));
    std::iota(order.begin(), order.end(), 0);
    const float* moved = bias.const_data_ptr<float>();
    std::partial_sort(order.begin(), order.begin() + top_k, order.end(), [&](int a, int b) {
      const float left = score[a] + moved[a], right = score[b] + moved[b];
      return left > right || (left == right && a < b);
    });
    float sum = 0;
    for (int i = 0; i < top_k; ++i) sum += score[order[i]];
    for (int i = 0; i < top_k; ++i) {
      routing.experts.push_back(order[i]);
      routing.weights.push_back(score[order[i]] / sum);
    }
  }
  return routing;
}

}  // namespace

// Rows of one expert stand together while it runs; each row then adds its own results, best expert first.
Tensor CpuBackend::MoeFeedForward(Context& ctx, const Tensor& x, const MoeWeights& w) const {
  const int64_t rows = x.size(0), d = x.size(1), experts = w.gate.size(0), slots = rows * w.top_k;
  const Routing routing = Route(Dense(ctx, x, {.weight = w.gate, .bias = {}}, Activation::kNone), w.bias, w.top_k);
  std::vector<int64_t> tokens(experts, 0);
  for (const int expert : routing.experts) ++tokens[expert];
  if (ctx.expert_loads != nullptr) ctx.expert_loads->push_back({w.layer, tokens});

  std::vector<int64_t> place(slots), next(experts, 0);  // of a slot among the rows grouped by expert
  for (int64_t e = 1; e < experts; ++e) next[e] = next[e - 1] + tokens[e - 1];
  const Tensor grouped = Take(ctx, {slots, d}), results = Take(ctx, {slots, d});
  float* to = grouped.mutable_data_ptr<float>();
  for (int64_t slot = 0; slot < slots; ++slot) {
    place[slot] = next[routing.experts[slot]]++;
    std::copy_n(x.const_data_ptr<float>() + slot / w.top_k * d, d, to + place[slot] * d);
  }
  for (int64_t e = 0, begin = 0; e < experts; begin += tokens[e++]) {
    if (tokens[e] == 0) continue;
    const int64_t width = w.down.size(2);
    const FeedForwardShape ffn{packed_.Get(w.up, {e * 2 * width, 2 * width, /*gated=*/true}),
                               packed_.Get(w.down, {e * d, d, /*gated=*/false}), kernels::RowActivation::kSilu};
    RunFeedForward(ctx, grouped.narrow(0, begin, tokens[e]), ffn, results.mutable_data_ptr<float>() + begin * d);
  }
  Tensor y = Take(ctx, x.sizes());
  float* out = y.mutable_data_ptr<float>();
  std::fill_n(out, y.numel(), 0.0f);
  for (int64_t slot = 0; slot < slots; ++slot) {
    kernels::BestVectorOps().add_scaled(results.const_data_ptr<float>() + place[slot] * d, routing.weights[slot], d,
                                        out + slot / w.top_k * d);
  }
  if (!w.shared_up.defined()) return y;
  const Tensor shared = Take(ctx, x.sizes());
  RunFeedForward(ctx, x, {Pack(w.shared_up, /*gated=*/true), Pack(w.shared_down), kernels::RowActivation::kSilu},
                 shared.mutable_data_ptr<float>());
  return Residual(ctx, y, shared);
}

}  // namespace beamline::backend
