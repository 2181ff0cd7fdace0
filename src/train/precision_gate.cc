// SPDX-License-Identifier: Apache-2.0
#include "train/precision_gate.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "beamline/status.h"

namespace beamline::train {
namespace {

using Lists = std::vector<std::vector<ItemId>>;

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

absl::StatusOr<PrecisionGateReport> ComparePrecisions(const std::string& dtype, const PrecisionRankings& rankings,
                                                      const data::BootstrapOptions& bootstrap,
                                                      const PrecisionGateLimits& limits) {
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
  PrecisionGateReport report;
  report.dtype = dtype;
  report.requests = static_cast<int64_t>(requests);
  report.top_1 = SameFirst(rankings.narrow.lists, rankings.bf16.lists);
  report.overlap = MeanOverlap(rankings.narrow.lists, rankings.fp32.lists);
  report.bf16_overlap = MeanOverlap(rankings.bf16.lists, rankings.fp32.lists);
  report.recall_10 = data::MeanMetrics(rankings.narrow.ranks).recall_10;
  report.bf16_recall_10 = data::MeanMetrics(rankings.bf16.ranks).recall_10;
  report.fp32_recall_10 = data::MeanMetrics(rankings.fp32.ranks).recall_10;
  BEAMLINE_ASSIGN_OR_RETURN(const data::MetricIntervals difference,
                            data::PairedBootstrap(rankings.narrow.ranks, rankings.bf16.ranks, bootstrap));
  report.recall_10_difference = difference.recall_10;
  if (report.top_1 < limits.top_1) {
    report.failures.push_back(absl::StrFormat("the best item is bf16's for %.4f of the requests, less than %.4f",
                                              report.top_1, limits.top_1));
  }
  if (report.overlap < report.bf16_overlap - limits.overlap) {
    report.failures.push_back(
        absl::StrFormat("the overlap with fp32's %d best is %.4f, bf16's is %.4f: more than %.4f over it", kGateList,
                        report.overlap, report.bf16_overlap, limits.overlap));
  }
  const data::Interval& interval = report.recall_10_difference;
  if (interval.low < -limits.recall_10 || interval.high > limits.recall_10) {
    report.failures.push_back(
        absl::StrFormat("R@10 differs from bf16's by %+.4f [%+.4f, %+.4f], which is not within %.4f", interval.mean,
                        interval.low, interval.high, limits.recall_10));
  }
  return report;
}

std::string PrecisionGateTable(const PrecisionGateReport& report) {
  const data::Interval& difference = report.recall_10_difference;
  std::string table = absl::StrFormat(
      "%s beside bf16 and fp32, %d requests\n"
      "best item is bf16's       %.4f\n"
      "overlap of the %d best with fp32's: %s %.4f, bf16 %.4f\n"
      "R@10: %s %.4f, bf16 %.4f, fp32 %.4f; %s - bf16 %+.4f [%+.4f, %+.4f]\n",
      report.dtype, report.requests, report.top_1, kGateList, report.dtype, report.overlap, report.bf16_overlap,
      report.dtype, report.recall_10, report.bf16_recall_10, report.fp32_recall_10, report.dtype, difference.mean,
      difference.low, difference.high);
  if (report.passed()) return table + "passed\n";
  for (const std::string& failure : report.failures) absl::StrAppend(&table, "missed: ", failure, "\n");
  return table;
}

}  // namespace beamline::train
