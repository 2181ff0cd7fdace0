// SPDX-License-Identifier: Apache-2.0
#include "model/ranker.h"

#include "beamline/kernels/ranker.h"
#include "beamline/request.h"

namespace beamline::model {

static_assert(kMaxRankerWidth <= kernels::kMaxRankerWidth && kNumLabels <= kernels::kMaxRankerHeads,
              "a configuration must not ask for more than the kernels do");

Ranker BindRanker(const ModelConfig& config, const Weights& weights) {
  Ranker ranker;
  ranker.state = {.weight = weights.Get("ranker.state.weight"), .bias = weights.Get("ranker.state.bias")};
  ranker.weights = {.code = weights.Get("ranker.code"),
                    .head = weights.Get("ranker.head.weight"),
                    .bias = weights.Get("ranker.head.bias")};
  ranker.weights.score_weight = static_cast<float>(config.ranker.score_weight);
  for (const RankerHead& head : config.ranker.heads) {
    ranker.weights.weights.push_back(static_cast<float>(head.weight));
  }
  return ranker;
}

at::Tensor RankerStates(backend::Context& ctx, const Ranker& ranker, const at::Tensor& x) {
  return backend::Dense(ctx, x, ranker.state);
}

}  // namespace beamline::model
