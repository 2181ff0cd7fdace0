// SPDX-License-Identifier: Apache-2.0
#include <utility>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/topk.h>

#include "backend/aten/aten_backend.h"
#include "beamline/kernels/moe_cuda.h"

namespace beamline::backend {
namespace {

Tensor SwiGlu(const Tensor& x, const Tensor& up, const Tensor& down) {
  const auto halves = at::linear(x, up).chunk(2, -1);
  return at::linear(at::silu(halves[0]) * halves[1], down);
}

struct Routing {
  Tensor experts;  // int64 [rows, top_k]
  Tensor weights;  // fp32 [rows, top_k], summing to 1, or to 0 where every score is
};

Routing Route(const Tensor& x, const MoeWeights& w) {
  const Tensor scores = at::sigmoid(at::linear(x.to(c10::kFloat), w.gate.to(c10::kFloat)));  // [rows, experts]
  const Tensor experts = std::get<1>(at::topk(scores.detach() + w.bias, w.top_k, -1));
  const Tensor chosen = scores.gather(1, experts);
  return {experts, chosen / (chosen.sum(-1, true) + kernels::kMoeSumFloor)};
}

// How often each expert is named.
std::vector<int64_t> Count(const Tensor& experts, int64_t of) {
  const Tensor tokens = at::bincount(experts, {}, of).to(c10::kCPU);
  return {tokens.const_data_ptr<int64_t>(), tokens.const_data_ptr<int64_t>() + tokens.numel()};
}

void RecordLoad(Context& ctx, const MoeWeights& w, const Routing& routing, std::vector<int64_t> counts) {
  if (ctx.expert_loads == nullptr) return;
  if (ctx.expert_rows.defined()) {
    counts = Count(routing.experts.masked_select(ctx.expert_rows.unsqueeze(1)), w.gate.size(0));
  }
  ctx.expert_loads->push_back({w.layer, std::move(counts)});
}

}  // namespace

// Rows are sorted by expert, each expert runs once over its rows, and every row gathers its own results: no atomics.
Tensor AtenBackend::MoeFeedForward(Context& ctx, const Tensor& x, const MoeWeights& w) const {
  const Routing routing = Route(x, w);
  const Tensor flat = routing.experts.reshape({-1});
  const Tensor by_expert = flat.argsort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
  const std::vector<int64_t> counts = Count(flat, w.gate.size(0));
  RecordLoad(ctx, w, routing, counts);

  const Tensor rows = x.index_select(0, by_expert.floor_divide(w.top_k));  // [rows * top_k, d], grouped by expert
  std::vector<Tensor> results;
  int64_t begin = 0;
  for (size_t expert = 0; expert < counts.size(); ++expert) {
    if (counts[expert] == 0) continue;
    results.push_back(SwiGlu(rows.narrow(0, begin, counts[expert]), w.up.select(0, expert), w.down.select(0, expert)));
    begin += counts[expert];
  }
  const Tensor grouped = at::cat(results, 0).index_select(0, by_expert.argsort());  // back to token order
  const Tensor weighted = grouped.view({x.size(0), w.top_k, -1}).to(c10::kFloat) * routing.weights.unsqueeze(-1);
  Tensor y = weighted.sum(1).to(x.scalar_type());
  if (w.shared_up.defined()) y = y + FeedForward(ctx, x, {.up = w.shared_up, .down = w.shared_down});
  return y;
}

}  // namespace beamline::backend
