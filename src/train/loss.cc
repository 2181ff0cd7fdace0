// SPDX-License-Identifier: Apache-2.0
#include "train/loss.h"

#include <optional>

#include <ATen/TensorOperators.h>
#include <ATen/core/Reduction.h>
#include <ATen/ops/binary_cross_entropy_with_logits.h>
#include <ATen/ops/cross_entropy_loss.h>

namespace beamline::train {

Loss CodeLoss(absl::Span<const at::Tensor> logits, const at::Tensor& labels, double label_smoothing) {
  Loss loss;
  for (int64_t level = 0; level < static_cast<int64_t>(logits.size()); ++level) {
    const at::Tensor rows = logits[level].flatten(0, 1);
    const at::Tensor wanted = labels.select(2, level).flatten();
    const at::Tensor smoothed =
        at::cross_entropy_loss(rows, wanted, std::nullopt, at::Reduction::Mean, kNoLabel, label_smoothing);
    loss.total = loss.total.defined() ? loss.total + smoothed : smoothed;
    loss.levels.push_back(label_smoothing == 0 ? smoothed.detach()
                                               : at::cross_entropy_loss(rows.detach(), wanted, std::nullopt,
                                                                        at::Reduction::Mean, kNoLabel, 0.0));
  }
  return loss;
}

at::Tensor BehaviourLoss(const at::Tensor& logits, const at::Tensor& labels) {
  const at::Tensor mean =
      at::binary_cross_entropy_with_logits(logits, labels, std::nullopt, std::nullopt, at::Reduction::Mean);
  return mean * logits.size(1);
}

}  // namespace beamline::train
