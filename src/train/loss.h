// SPDX-License-Identifier: Apache-2.0
//
// The training losses. Of the model: for every target, the sum over steps of the cross-entropy of its code, with
// uniform label smoothing; the mean over the targets. Steps whose label is kNoLabel (padding) do not count. Of its
// ranker: the sum over heads of the binary cross-entropy, the mean over the targets.
#pragma once

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>

#include "absl/types/span.h"

namespace beamline::train {

inline constexpr int64_t kNoLabel = -100;

struct Loss {
  at::Tensor total;                // scalar, with a gradient where the logits have one
  std::vector<at::Tensor> levels;  // scalars without gradient or smoothing: mean -log p per step
};

// logits: per step fp32 [batch, targets, columns]; labels: int64 [batch, targets, steps], columns, on the same device.
// REQUIRES: at least one label that counts.
Loss CodeLoss(absl::Span<const at::Tensor> logits, const at::Tensor& labels, double label_smoothing);

// logits and labels (0 or 1): fp32 [targets, heads]. A scalar, with a gradient where the logits have one.
at::Tensor BehaviourLoss(const at::Tensor& logits, const at::Tensor& labels);

}  // namespace beamline::train
