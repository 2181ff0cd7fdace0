// SPDX-License-Identifier: Apache-2.0
#include "train/expert_balance.h"

#include <map>
#include <numeric>
#include <string>

#include <ATen/core/grad_mode.h>

#include "absl/strings/str_cat.h"
#include "backend/ops.h"

namespace beamline::train {

std::vector<float> BalancedBias(absl::Span<const float> bias, absl::Span<const int64_t> tokens, double rate) {
  std::vector<float> moved(bias.begin(), bias.end());
  const double mean = static_cast<double>(std::accumulate(tokens.begin(), tokens.end(), int64_t{0})) /
                      static_cast<double>(tokens.size());
  for (size_t expert = 0; expert < tokens.size(); ++expert) {
    const double surplus = static_cast<double>(tokens[expert]) - mean;
    if (surplus > 0) moved[expert] -= static_cast<float>(rate);
    if (surplus < 0) moved[expert] += static_cast<float>(rate);
  }
  return moved;
}

void UpdateExpertBiases(backend::Context& ctx, absl::Span<const backend::ExpertLoad> loads, double rate,
                        const model::Weights& weights) {
  std::map<std::string, std::vector<int64_t>> totals;
  for (const backend::ExpertLoad& load : loads) {
    std::vector<int64_t>& total = totals[load.layer];
    total.resize(load.tokens.size());
    for (size_t expert = 0; expert < load.tokens.size(); ++expert) total[expert] += load.tokens[expert];
  }
  const at::NoGradGuard no_gradients;
  for (const auto& [layer, tokens] : totals) {
    at::Tensor bias = weights.Get(absl::StrCat(layer, ".bias"));
    const std::vector<float> moved = BalancedBias(backend::DownloadFloats(ctx, bias), tokens, rate);
    bias.copy_(backend::UploadFloats(ctx, moved, {static_cast<int64_t>(moved.size())}));
  }
}

}  // namespace beamline::train
