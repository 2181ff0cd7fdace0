// SPDX-License-Identifier: Apache-2.0
#include "loadgen/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace beamline::loadgen {
namespace {

// P(X <= k) for k = 0 .. n of a binomial; terms grow from the mode outwards, so none underflows before it is
// negligible.
std::vector<double> BinomialCumulative(int64_t n, double q) {
  std::vector<double> mass(n + 1, 0.0);
  const auto mode = std::min<int64_t>(n, static_cast<int64_t>(static_cast<double>(n + 1) * q));
  const auto log_factorial = [](int64_t k) { return std::lgamma(static_cast<double>(k) + 1); };
  mass[mode] = std::exp(log_factorial(n) - log_factorial(mode) - log_factorial(n - mode) +
                        static_cast<double>(mode) * std::log(q) + static_cast<double>(n - mode) * std::log1p(-q));
  const double odds = q / (1 - q);
  for (int64_t k = mode; k < n && mass[k] > 0; ++k) {
    mass[k + 1] = mass[k] * odds * static_cast<double>(n - k) / static_cast<double>(k + 1);
  }
  for (int64_t k = mode; k > 0 && mass[k] > 0; --k) {
    mass[k - 1] = mass[k] / odds * static_cast<double>(k) / static_cast<double>(n - k + 1);
  }
  std::partial_sum(mass.begin(), mass.end(), mass.begin());
  return mass;
}

}  // namespace

// With X values below the quantile: value[low] <= quantile iff X >= low, value[high] >= quantile iff X < high.
RankInterval QuantileRanks(int64_t n, double q, double confidence) {
  if (n == 0) return {0, 1};
  const std::vector<double> cumulative = BinomialCumulative(n, q);
  const double tail = (1 - confidence) / 2;
  RankInterval ranks{0, n + 1};
  while (ranks.low < n && cumulative[ranks.low] <= tail) ++ranks.low;                       // P(X <= low - 1) <= tail
  const auto above = std::lower_bound(cumulative.begin(), cumulative.end() - 1, 1 - tail);  // P(X <= high - 1)
  if (above != cumulative.end() - 1) ranks.high = above - cumulative.begin() + 1;
  return ranks;
}

const Quantile& Summary::at(double q) const {
  return *std::find_if(quantiles.begin(), quantiles.end(), [&](const Quantile& quantile) { return quantile.q == q; });
}

Summary Summarize(std::vector<double> values) {
  Summary summary;
  summary.count = std::ssize(values);
  if (values.empty()) return summary;
  std::sort(values.begin(), values.end());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(summary.count);
  summary.max = values.back();
  for (const double q : kQuantiles) {
    const auto rank = static_cast<int64_t>(std::ceil(q * static_cast<double>(summary.count)));
    Quantile quantile{q, values[std::max<int64_t>(rank, 1) - 1], {}, {}};
    const RankInterval ranks = QuantileRanks(summary.count, q, 0.95);
    if (ranks.low >= 1) quantile.low = values[ranks.low - 1];
    if (ranks.high <= summary.count) quantile.high = values[ranks.high - 1];
    summary.quantiles.push_back(quantile);
  }
  return summary;
}

}  // namespace beamline::loadgen
