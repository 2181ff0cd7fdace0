// SPDX-License-Identifier: Apache-2.0
//
// Recall@k and NDCG@k of full rankings with one target per user, from the target's rank: 1 is best, ties give fractions
// (mean rank), kMissRank means not ranked at all. Confidence intervals by the bootstrap over users (Efron 1979), paired
// where two systems rank the same users: resampling users keeps each user's two results together, so that what makes a
// user easy or hard cancels. Where no user is a hit, or every user a whole one, all resamples are equal and the
// bootstrap would claim certainty: the interval then ends at the exact one's bound (Clopper-Pearson; about 3.7 users of
// all at 95 %), which holds for NDCG, too, since it is at most the recall. Deterministic for a seed. Pure functions;
// thread-safe. After an interrupt (base/interrupt.h) intervals mean nothing: check that afterwards.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace beamline::data {

inline constexpr double kMissRank = std::numeric_limits<double>::infinity();

double RecallAt(double rank, int k);  // 1 if rank <= k, else 0
double NdcgAt(double rank, int k);    // 1 / log2(1 + rank) if rank <= k, else 0

struct RankingMetrics {
  double recall_5 = 0;
  double ndcg_5 = 0;
  double recall_10 = 0;
  double ndcg_10 = 0;
};

// Means over users; zeros where there are none.
RankingMetrics MeanMetrics(absl::Span<const double> ranks);

struct BootstrapOptions {
  int resamples = 1000;
  double confidence = 0.95;
  uint64_t seed = 1;
};

struct Interval {
  double low = 0;
  double mean = 0;  // of the data itself, not of the resamples
  double high = 0;
};

struct MetricIntervals {
  Interval recall_5;
  Interval ndcg_5;
  Interval recall_10;
  Interval ndcg_10;
};

// Percentile intervals of the means.
MetricIntervals BootstrapMetrics(absl::Span<const double> ranks, const BootstrapOptions& options = {});

// Percentile intervals of mean(a) - mean(b) over the same users in the same order; where neither has a hit, or both
// have all, the exact bound both ways. INVALID_ARGUMENT if lengths differ.
absl::StatusOr<MetricIntervals> PairedBootstrap(absl::Span<const double> ranks_a, absl::Span<const double> ranks_b,
                                                const BootstrapOptions& options = {});

// "R@5 .0410  N@5 .0270  R@10 .0714  N@10 .0367"
std::string FormatMetrics(const RankingMetrics& metrics);

}  // namespace beamline::data
