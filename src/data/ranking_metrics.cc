// SPDX-License-Identifier: Apache-2.0
#include "data/ranking_metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/digest.h"
#include "base/interrupt.h"

namespace beamline::data {
namespace {

constexpr int kMetrics = 4;
using Values = std::array<double, kMetrics>;  // in the order of RankingMetrics' members
constexpr std::array<Interval MetricIntervals::*, kMetrics> kIntervals = {
    &MetricIntervals::recall_5, &MetricIntervals::ndcg_5, &MetricIntervals::recall_10, &MetricIntervals::ndcg_10};

Values ValuesOf(double rank) { return {RecallAt(rank, 5), NdcgAt(rank, 5), RecallAt(rank, 10), NdcgAt(rank, 10)}; }

Values MeanOf(const std::vector<Values>& users) {
  Values sum{};
  for (const Values& user : users) {
    for (int m = 0; m < kMetrics; ++m) sum[m] += user[m];
  }
  for (double& value : sum) value /= static_cast<double>(std::max<size_t>(users.size(), 1));
  return sum;
}

// A counter-based generator: no state to share, the same draws on every platform. REQUIRES: bound <= 2^32.
uint64_t DrawBelow(uint64_t seed, uint64_t counter, uint64_t bound) {
  return ((StableMix64(counter, seed) >> 32) * bound) >> 32;
}

double Percentile(const std::vector<double>& sorted, double fraction) {
  const double position = fraction * static_cast<double>(sorted.size() - 1);
  const size_t below = static_cast<size_t>(position);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// Upper end of the Clopper-Pearson interval of a share of which none was seen.
double BoundOfNone(size_t users, double confidence) {
  return 1 - std::pow((1 - confidence) / 2, 1 / static_cast<double>(users));
}

MetricIntervals Bootstrap(const std::vector<Values>& users, const BootstrapOptions& options) {
  const Values mean = MeanOf(users);
  std::array<std::vector<double>, kMetrics> resampled;
  const uint64_t count = users.size();
  const int resamples = count == 0 ? 0 : std::max(options.resamples, 1);
  for (int resample = 0; resample < resamples; ++resample) {
    if (Interrupted()) return {};
    Values sum{};
    for (uint64_t draw = 0; draw < count; ++draw) {
      const Values& user = users[DrawBelow(options.seed, resample * count + draw, count)];
      for (int m = 0; m < kMetrics; ++m) sum[m] += user[m];
    }
    for (int m = 0; m < kMetrics; ++m) resampled[m].push_back(sum[m] / static_cast<double>(count));
  }
  std::array<Interval, kMetrics> intervals;
  const double tail = (1 - options.confidence) / 2;
  for (int m = 0; m < kMetrics; ++m) {
    std::sort(resampled[m].begin(), resampled[m].end());
    if (resamples > 0) intervals[m] = {Percentile(resampled[m], tail), mean[m], Percentile(resampled[m], 1 - tail)};
  }
  return {intervals[0], intervals[1], intervals[2], intervals[3]};
}

}  // namespace

double RecallAt(double rank, int k) { return rank <= k ? 1.0 : 0.0; }
double NdcgAt(double rank, int k) { return rank <= k ? 1.0 / std::log2(1.0 + rank) : 0.0; }

RankingMetrics MeanMetrics(absl::Span<const double> ranks) {
  std::vector<Values> users;
  users.reserve(ranks.size());
  for (const double rank : ranks) users.push_back(ValuesOf(rank));
  const Values mean = MeanOf(users);
  return {mean[0], mean[1], mean[2], mean[3]};
}

MetricIntervals BootstrapMetrics(absl::Span<const double> ranks, const BootstrapOptions& options) {
  std::vector<Values> users;
  users.reserve(ranks.size());
  for (const double rank : ranks) users.push_back(ValuesOf(rank));
  MetricIntervals intervals = Bootstrap(users, options);
  for (const auto metric : kIntervals) {
    Interval& one = intervals.*metric;
    if (users.empty()) continue;
    if (one.mean == 0) one.high = BoundOfNone(users.size(), options.confidence);
    if (one.mean == 1) one.low = 1 - BoundOfNone(users.size(), options.confidence);
  }
  return intervals;
}

absl::StatusOr<MetricIntervals> PairedBootstrap(absl::Span<const double> ranks_a, absl::Span<const double> ranks_b,
                                                const BootstrapOptions& options) {
  if (ranks_a.size() != ranks_b.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a paired bootstrap needs the same users twice, not ", ranks_a.size(), " and ", ranks_b.size()));
  }
  std::vector<Values> users;
  users.reserve(ranks_a.size());
  Values hits{};
  for (size_t user = 0; user < ranks_a.size(); ++user) {
    Values difference = ValuesOf(ranks_a[user]);
    const Values other = ValuesOf(ranks_b[user]);
    for (int m = 0; m < kMetrics; ++m) {
      hits[m] += difference[m] + other[m];
      difference[m] -= other[m];
    }
    users.push_back(difference);
  }
  MetricIntervals intervals = Bootstrap(users, options);
  for (int m = 0; m < kMetrics; ++m) {
    const bool all_alike = hits[m] == 0 || hits[m] == 2 * static_cast<double>(users.size());
    if (!all_alike || users.empty()) continue;
    const double bound = BoundOfNone(users.size(), options.confidence);
    intervals.*kIntervals[m] = {-bound, 0, bound};
  }
  return intervals;
}

std::string FormatMetrics(const RankingMetrics& metrics) {
  const auto number = [](double value) {
    const std::string text = absl::StrFormat("%.4f", value);
    return text[0] == '0' ? text.substr(1) : text;
  };
  return absl::StrCat("R@5 ", number(metrics.recall_5), "  N@5 ", number(metrics.ndcg_5), "  R@10 ",
                      number(metrics.recall_10), "  N@10 ", number(metrics.ndcg_10));
}

}  // namespace beamline::data
