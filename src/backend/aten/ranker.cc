// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>

#include "backend/aten/aten_backend.h"

namespace beamline::backend {

Tensor AtenBackend::RankerLogits(Context&, const Tensor& states, const RankerWeights& w, const Tensor& codes) const {
  const Tensor hidden = at::silu(states.to(c10::kFloat) + w.code.index_select(0, codes).to(c10::kFloat));
  return at::linear(hidden, w.head.to(c10::kFloat), w.bias.to(c10::kFloat));  // [n, heads]
}

void AtenBackend::RankBeams(Context& ctx, const RankBeamsArgs& args) const {
  const auto requests = static_cast<int64_t>(args.requests.size());
  const int64_t rows = args.states.size(0) / requests;
  std::vector<int32_t> parents, codes;
  std::vector<float> scores;
  for (int64_t b = 0; b < requests; ++b) {
    const kernels::BeamSlots* beams = args.requests[b].beams;
    if (beams == nullptr) continue;
    for (int32_t i = 0; i < beams->count; ++i) {
      parents.push_back(static_cast<int32_t>(b * rows + beams->parent[i]));
      codes.push_back(beams->code[i]);
      scores.push_back(beams->score[i]);
    }
  }
  if (codes.empty()) return;
  const auto count = static_cast<int64_t>(codes.size());
  const Tensor states = args.states.index_select(0, UploadInts(ctx, parents, {count}));
  const Tensor logits = RankerLogits(ctx, states, args.weights, UploadInts(ctx, codes, {count}));
  const auto heads = static_cast<int64_t>(args.weights.weights.size());
  const Tensor weights = UploadFloats(ctx, args.weights.weights, {1, heads});
  const Tensor of_score = UploadFloats(ctx, scores, {count}) * args.weights.score_weight;
  const std::vector<float> values = DownloadFloats(ctx, of_score + (logits.sigmoid() * weights).sum(1));
  auto next = values.begin();
  for (const RankRequest& request : args.requests) {
    if (request.beams == nullptr) continue;
    std::copy_n(next, request.beams->count, request.values);
    next += request.beams->count;
  }
}

}  // namespace beamline::backend
