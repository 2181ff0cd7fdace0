// SPDX-License-Identifier: Apache-2.0
#include "train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "model/weight_schema.h"

namespace beamline::train {
namespace {

// min(1, largest / norm), on the norm's device; taken in double, as on the host.
at::Tensor ClipFactor(const at::Tensor& norm, double largest) {
  const at::Tensor of = at::full({}, largest, norm.options().dtype(at::kDouble));
  return of.div(norm.to(at::kDouble) + 1e-6).clamp_max(1).to(norm.scalar_type());
}

}  // namespace

AdamW::AdamW(const model::ModelConfig& config, const model::Weights& weights, const OptimizerOptions& options)
    : options_(options), groups_(3) {
  groups_[0].decay = options.weight_decay;
  groups_[1].decay = options.embedding_decay;
  groups_[2].decay = 0;
  for (const model::WeightSpec& spec : model::WeightSchema(config)) {
    if (spec.role == model::WeightRole::kBuffer) continue;
    const at::Tensor& parameter = weights.Get(spec.name);
    if (!parameter.defined()) continue;
    parameter.set_requires_grad(true);
    Moment moment{spec.name, at::zeros_like(parameter.detach()), at::zeros_like(parameter.detach())};
    Group& group = groups_[spec.role == model::WeightRole::kMatrix      ? 0
                           : spec.role == model::WeightRole::kEmbedding ? 1
                                                                        : 2];
    group.parameters.push_back(parameter);
    group.first.push_back(moment.first);
    group.second.push_back(moment.second);
    moments_.push_back(std::move(moment));
  }
  count_ = at::zeros({}, moments_.front().first.options().dtype(at::kFloat));
}

void AdamW::ZeroGradients() {
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters) parameter.mutable_grad().reset();
  }
}

at::Tensor AdamW::Step(double learning_rate) {
  const at::NoGradGuard no_gradients;
  std::vector<at::Tensor> all;
  for (Group& group : groups_) {
    for (at::Tensor& parameter : group.parameters) {
      if (!parameter.grad().defined()) parameter.mutable_grad() = at::zeros_like(parameter);
      all.push_back(parameter.grad());
    }
  }
  const at::Tensor norm = at::linalg_vector_norm(at::stack(at::_foreach_norm(all, 2)));
  if (options_.clip_norm > 0) at::_foreach_mul_(all, ClipFactor(norm, options_.clip_norm));
  const at::Tensor finite = at::isfinite(norm).to(at::kFloat), not_finite = 1 - finite;
  count_.add_(finite);
  for (Group& group : groups_) {
    if (group.parameters.empty()) continue;
    std::vector<at::Tensor> gradients;
    gradients.reserve(group.parameters.size());
    for (const at::Tensor& parameter : group.parameters) gradients.push_back(parameter.grad());
    const std::vector<at::Tensor> counts(group.parameters.size(), count_);
    at::_fused_adamw_(group.parameters, gradients, group.first, group.second, {}, counts, learning_rate, options_.beta1,
                      options_.beta2, group.decay, options_.epsilon, /*amsgrad=*/false, /*maximize=*/false,
                      /*grad_scale=*/{}, /*found_inf=*/not_finite);
  }
  return norm;
}

int64_t AdamW::steps() const { return static_cast<int64_t>(count_.item<float>()); }

void AdamW::Restore(int64_t steps) {
  const at::NoGradGuard no_gradients;
  count_.fill_(static_cast<double>(steps));
}

}  // namespace beamline::train
