// SPDX-License-Identifier: Apache-2.0
//
// Quantiles of measured values with confidence intervals that assume no distribution: the number of values below the
// true q-quantile is binomial (n, q), so two order statistics enclose it with a probability that can be computed. Where
// no value lies far enough out (the P99.9 of a hundred values), the bound is unknown and said to be. The values are
// taken for independent; successive latencies are not quite, so a true interval is somewhat wider. Pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace beamline::loadgen {

// Ranks from 1; 0 and n + 1: no value bounds it on that side.
struct RankInterval {
  int64_t low = 0;
  int64_t high = 0;
};

// The narrowest ranks with P(value[low] <= quantile) and P(quantile <= value[high]) each at least (1 + confidence) / 2.
// REQUIRES: n >= 0, 0 < q < 1, 0 < confidence < 1.
RankInterval QuantileRanks(int64_t n, double q, double confidence);

struct Quantile {
  double q = 0;
  double value = 0;                 // of rank ceil(q n)
  std::optional<double> low, high;  // 95 %; nullopt: too few values to say
};

inline constexpr double kQuantiles[] = {0.5, 0.9, 0.95, 0.99, 0.999};

struct Summary {
  int64_t count = 0;
  double mean = 0, max = 0;
  std::vector<Quantile> quantiles;  // of kQuantiles; empty when count is 0

  // REQUIRES: q is one of kQuantiles and count > 0.
  const Quantile& at(double q) const;
};

Summary Summarize(std::vector<double> values);

}  // namespace beamline::loadgen
