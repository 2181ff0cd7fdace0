// SPDX-License-Identifier: Apache-2.0
//
// An exponential moving average of a model's weights (Polyak and Juditsky 1992): steadier than the last step's, and
// usually better on small logs. Warm-up: the decay of step t is min(decay, (1 + t) / (10 + t)), so the first steps do
// not linger. Owns its tensors. Not thread-safe.
#pragma once

#include <cstdint>

#include "model/weights.h"

namespace beamline::train {

class WeightAverage {
 public:
  // Starts at a copy of `weights`, which it follows; `decay` in (0, 1).
  WeightAverage(const model::Weights& weights, double decay);

  void Update(int64_t step);
  const model::Weights& average() const { return average_; }

 private:
  model::Weights followed_;
  model::Weights average_;
  double decay_;
};

// A copy that shares nothing and requires no gradient.
model::Weights CloneWeights(const model::Weights& weights);

}  // namespace beamline::train
