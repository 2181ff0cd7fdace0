// SPDX-License-Identifier: Apache-2.0
#include "train/precision_gate.h"

#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "beamline/types.h"

namespace beamline::train {
namespace {

using Lists = std::vector<std::vector<ItemId>>;

constexpr int kFewestResamples = 1000;

double MeanOverlap(const Lists& of, const Lists& with) {
  double sum = 0;
  int64_t counted = 0;
  for (size_t i = 0; i < of.size(); ++i) {
    if (with[i].empty()) continue;
    const absl::flat_hash_set<ItemId> items(of[i].begin(), of[i].end());
    const auto common =
        std::count_if(with[i].begin(), with[i].end(), [&](ItemId item) { return items.contains(item); });
    sum += static_cast<double>(common) / static_cast<double>(with[i].size());
    ++counted;
  }
  return counted == 0 ? 1 : sum / static_cast<double>(counted);
}

double SameFirst(const Lists& a, const Lists& b) {
  int64_t same = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const bool equal = a[i].empty() || b[i].empty() ? a[i].empty() == b[i].empty() : a[i][0] == b[i][0];
    same += equal ? 1 : 0;
  }
  return static_cast<double>(same) / static_cast<double>(a.size());
}

}  // namespace

absl::Status CheckGateBootstrap(const data::BootstrapOptions& bootstrap) {
  if (bootstrap.resamples >= kFewestResamples) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("resamples: a gate's interval needs at least ", kFewestResamples, ", not ", bootstrap.resamples));
}

absl::StatusOr<runtime::PrecisionGateReport> ComparePrecisions(const std::string& dtype,
                                                               const PrecisionRankings& rankings,
                                                               const data::BootstrapOptions& bootstrap) {
  const size_t requests = rankings.fp32.ranks.size();
  if (requests == 0) return absl::InvalidArgumentError("the gate compares no request");
  for (const CaseRankings* one : {&rankings.fp32, &rankings.bf16, &rankings.narrow}) {
    if (one->ranks.size() == requests && one->lists.size() == requests) continue;
    return absl::InvalidArgumentError(absl::StrCat("the gate compares rankings of the same cases, not of ", requests,
                                                   " and ", one->ranks.size(), ", with ", one->lists.size(), " lists"));
  }
  if (std::all_of(rankings.fp32.lists.begin(), rankings.fp32.lists.end(),
                  [](const auto& one) { return one.empty(); })) {
    return absl::InvalidArgumentError("the gate compares empty lists: fp32 finds nothing for any request");
  }
  BEAMLINE_RETURN_IF_ERROR(CheckGateBootstrap(bootstrap));
  runtime::PrecisionGateReport report;
  report.dtype = dtype;
  report.requests = static_cast<int64_t>(requests);
  report.top_1 = SameFirst(rankings.narrow.lists, rankings.bf16.lists);
  report.overlap = MeanOverlap(rankings.narrow.lists, rankings.fp32.lists);
  report.bf16_overlap = MeanOverlap(rankings.bf16.lists, rankings.fp32.lists);
  report.recall_10 = data::MeanMetrics(rankings.narrow.ranks).recall_10;
  report.bf16_recall_10 = data::MeanMetrics(rankings.bf16.ranks).recall_10;
  report.fp32_recall_10 = data::MeanMetrics(rankings.fp32.ranks).recall_10;
  if (report.bf16_recall_10 == 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the gate compares shares of bf16's R@10, which is 0 for ", requests,
                     " requests: the model finds nothing; train it, or let more users take part"));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const data::MetricIntervals difference,
                            data::PairedBootstrap(rankings.narrow.ranks, rankings.bf16.ranks, bootstrap));
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  report.recall_10_difference = difference.recall_10;
  return report;
}

}  // namespace beamline::train
