// SPDX-License-Identifier: Apache-2.0
#include "train/weight_average.h"

#include <algorithm>
#include <string>

#include <ATen/core/grad_mode.h>

namespace beamline::train {

WeightAverage::WeightAverage(const model::Weights& weights, double decay)
    : followed_(weights), average_(CloneWeights(weights)), decay_(decay) {}

void WeightAverage::Update(int64_t step) {
  const at::NoGradGuard no_gradients;
  const double decay = std::min(decay_, (1.0 + static_cast<double>(step)) / (10.0 + static_cast<double>(step)));
  for (const auto& [name, average] : average_.tensors()) average.lerp_(followed_.Get(name).detach(), 1.0 - decay);
}

model::Weights CloneWeights(const model::Weights& weights) {
  model::Weights copy;
  for (const auto& [name, tensor] : weights.tensors()) copy.Set(name, tensor.detach().clone());
  return copy;
}

}  // namespace beamline::train
