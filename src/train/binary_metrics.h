// SPDX-License-Identifier: Apache-2.0
//
// How well probabilities tell events that have a label from those that have not. Pure functions; thread-safe.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"

namespace beamline::train {

// The probability that a random event with the label has the higher score of it and a random one without, ties counting
// half (Mann and Whitney 1947). nullopt where there are none of one kind. REQUIRES: equal lengths, scores that are
// numbers.
std::optional<double> AreaUnderCurve(absl::Span<const float> scores, absl::Span<const uint8_t> has_label);

// The mean of -log p of what happened, in nats, from the logits of p. REQUIRES: equal lengths, not 0.
double LogLoss(absl::Span<const float> logits, absl::Span<const uint8_t> has_label);
// The same where `rate`, in (0, 1), is said of every event.
double ConstantLogLoss(double rate, absl::Span<const uint8_t> has_label);

}  // namespace beamline::train
