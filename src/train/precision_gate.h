// SPDX-License-Identifier: Apache-2.0
//
// The quality gate of a narrow precision (fp8, int8): what a trained model ranks first for held-out cases in it, beside
// bf16, which it is to replace, and fp32, which both round. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "beamline/types.h"
#include "data/ranking_metrics.h"
#include "train/item_ranker.h"

namespace beamline::train {

inline constexpr int kGateList = 32;  // items of a list that are compared

struct PrecisionGateLimits {
  double top_1 = 0.97;      // least share of requests whose best item is bf16's
  double overlap = 0.05;    // of the list with fp32's: at most this much under bf16's
  double recall_10 = 0.02;  // the paired interval of the difference of R@10 to bf16's, of requests, lies within +- this
};

struct PrecisionGateReport {
  std::string dtype;
  int64_t requests = 0;
  double top_1 = 0;                      // share of requests whose best item is bf16's
  double overlap = 0, bf16_overlap = 0;  // mean share of fp32's list that is in theirs
  double recall_10 = 0, bf16_recall_10 = 0, fp32_recall_10 = 0;
  data::Interval recall_10_difference;  // to bf16, paired
  std::vector<std::string> failures;    // in words, one for each limit that is missed; empty: it passes

  bool passed() const { return failures.empty(); }
};

// Rankings of the same cases in the same order, with lists of kGateList. INVALID_ARGUMENT where they are not.
struct PrecisionRankings {
  CaseRankings fp32, bf16, narrow;
};
absl::StatusOr<PrecisionGateReport> ComparePrecisions(const std::string& dtype, const PrecisionRankings& rankings,
                                                      const data::BootstrapOptions& bootstrap = {},
                                                      const PrecisionGateLimits& limits = {});

std::string PrecisionGateTable(const PrecisionGateReport& report);

}  // namespace beamline::train
