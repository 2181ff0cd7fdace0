// SPDX-License-Identifier: Apache-2.0
//
// Losses and gradient norms of steps that the device may still be at: one small tensor of each step stays there until
// somebody asks, and then one copy brings them all, so that no step waits for the one before it. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "train/loss.h"

namespace beamline::train {

struct StepValues {
  int64_t step = 0;     // from 0
  int64_t targets = 0;  // of its batch
  double loss = 0;
  double gradient_norm = 0;
  std::vector<double> level_losses;
};

class PendingSteps {
 public:
  // Scalars on one device; as many levels in every step.
  void Add(int64_t step, int64_t targets, const Loss& loss, const at::Tensor& gradient_norm);
  size_t size() const { return steps_.size(); }
  // All since the last call, in order. Waits for the device.
  std::vector<StepValues> Take();

 private:
  std::vector<StepValues> steps_;   // values not filled in
  std::vector<at::Tensor> values_;  // per step: loss, norm, levels
};

}  // namespace beamline::train
