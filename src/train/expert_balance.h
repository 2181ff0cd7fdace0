// SPDX-License-Identifier: Apache-2.0
//
// Balancing of MoE experts without an auxiliary loss (DeepSeek-V3, 2412.19437, section 2.1.2): after each step the bias
// of an expert that got more than the mean load falls by `rate`, that of one that got less rises by it. The biases
// steer the choice of experts only, never their weight in the sum. Padding is no load (Context::expert_rows).
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "backend/context.h"
#include "model/weights.h"

namespace beamline::train {

// New bias of every expert. Pure.
std::vector<float> BalancedBias(absl::Span<const float> bias, absl::Span<const int64_t> tokens, double rate);

// Adds up the loads of each layer and moves `<layer>.bias` in place.
void UpdateExpertBiases(backend::Context& ctx, absl::Span<const backend::ExpertLoad> loads, double rate,
                        const model::Weights& weights);

}  // namespace beamline::train
