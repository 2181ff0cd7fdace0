// SPDX-License-Identifier: Apache-2.0
#include "train/pending_steps.h"

#include <utility>

#include <ATen/core/TensorAccessor.h>
#include <ATen/ops/stack.h>

namespace beamline::train {

void PendingSteps::Add(int64_t step, int64_t targets, const Loss& loss, const at::Tensor& gradient_norm) {
  std::vector<at::Tensor> values = {loss.total.detach(), gradient_norm};
  values.insert(values.end(), loss.levels.begin(), loss.levels.end());
  values_.push_back(at::stack(values));
  steps_.push_back({.step = step, .targets = targets});
}

std::vector<StepValues> PendingSteps::Take() {
  if (steps_.empty()) return {};
  const at::Tensor values = at::stack(values_).to(at::kCPU, at::kFloat);
  const auto rows = values.accessor<float, 2>();
  for (int64_t i = 0; i < rows.size(0); ++i) {
    StepValues& step = steps_[i];
    step.loss = rows[i][0];
    step.gradient_norm = rows[i][1];
    for (int64_t level = 2; level < rows.size(1); ++level) step.level_losses.push_back(rows[i][level]);
  }
  values_.clear();
  return std::exchange(steps_, {});
}

}  // namespace beamline::train
