// SPDX-License-Identifier: Apache-2.0
#include "train/binary_metrics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace beamline::train {

std::optional<double> AreaUnderCurve(absl::Span<const float> scores, absl::Span<const uint8_t> has_label) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  double wins = 0, with = 0, without = 0;  // exact: below 2^53
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    double tied_with = 0, tied_without = 0;
    for (; end < order.size() && scores[order[end]] == scores[order[begin]]; ++end) {
      (has_label[order[end]] != 0 ? tied_with : tied_without) += 1;
    }
    wins += tied_with * (without + tied_without / 2);
    with += tied_with;
    without += tied_without;
  }
  if (with == 0 || without == 0) return std::nullopt;
  return wins / (with * without);
}

double LogLoss(absl::Span<const float> logits, absl::Span<const uint8_t> has_label) {
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const double x = has_label[i] != 0 ? logits[i] : -logits[i];
    sum += std::max(-x, 0.0) + std::log1p(std::exp(-std::abs(x)));  // -log sigmoid(x)
  }
  return sum / static_cast<double>(logits.size());
}

double ConstantLogLoss(double rate, absl::Span<const uint8_t> has_label) {
  const double with = static_cast<double>(std::count(has_label.begin(), has_label.end(), uint8_t{1}));
  const double share = with / static_cast<double>(has_label.size());
  return -share * std::log(rate) - (1 - share) * std::log(1 - rate);
}

}  // namespace beamline::train
