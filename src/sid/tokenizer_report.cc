// SPDX-License-Identifier: Apache-2.0
#include "sid/tokenizer_report.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "beamline/status.h"
#include "sid/balance.h"
#include "sid/kmeans.h"
#include "sid/random_source.h"

namespace beamline::sid {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

double Energy(const FloatMatrix& matrix) {
  double energy = 0;
  for (const float value : matrix.values) energy += double{value} * value;
  return energy;
}

// Sum of squared distances to the mean vector.
double Spread(const FloatMatrix& vectors) {
  double spread = Energy(vectors);
  for (int64_t d = 0; d < vectors.cols; ++d) {
    double sum = 0;
    for (int64_t i = 0; i < vectors.rows; ++i) sum += vectors.row(i)[d];
    spread -= sum * sum / static_cast<double>(vectors.rows);
  }
  return std::max(0.0, spread);
}

std::vector<uint32_t> LevelCodes(absl::Span<const Sid> sids, int level) {
  std::vector<uint32_t> codes(sids.size());
  for (size_t i = 0; i < sids.size(); ++i) codes[i] = sids[i][level];
  return codes;
}

LevelReport ReportLevel(const std::vector<uint32_t>& codes, uint32_t size) {
  LevelReport report;
  report.size = size;
  report.error = kUnknown;
  for (const int64_t count : CountCodes(codes, size)) {
    if (count == 0) continue;
    const double share = static_cast<double>(count) / static_cast<double>(codes.size());
    report.entropy -= share * std::log(share);
    report.largest = std::max(report.largest, count);
    ++report.used;
  }
  return report;
}

void CountCollisions(absl::Span<const Sid> sids, AssignmentReport& report) {
  std::vector<Sid> sorted(sids.begin(), sids.end());
  std::sort(sorted.begin(), sorted.end());
  for (size_t begin = 0; begin < sorted.size();) {
    size_t end = begin;
    while (end < sorted.size() && sorted[end] == sorted[begin]) ++end;
    const auto count = static_cast<int64_t>(end - begin);
    ++report.distinct_sids;
    report.largest_sid = std::max(report.largest_sid, count);
    if (count > 1) report.colliding_items += count;
    begin = end;
  }
}

// centroids: of the codebook, or null to fit each code's mean to the items it has.
AssignmentReport Report(absl::Span<const uint32_t> level_sizes, absl::Span<const Sid> sids, const FloatMatrix* vectors,
                        const Codebook* codebook) {
  AssignmentReport report;
  report.items = static_cast<int64_t>(sids.size());
  report.error = kUnknown;
  CountCollisions(sids, report);
  FloatMatrix residuals;
  if (vectors != nullptr) residuals = *vectors;
  const double spread = vectors != nullptr ? Spread(*vectors) : 0;
  for (int level = 0; level < static_cast<int>(level_sizes.size()); ++level) {
    const std::vector<uint32_t> codes = LevelCodes(sids, level);
    report.levels.push_back(ReportLevel(codes, level_sizes[level]));
    if (vectors == nullptr) continue;
    FloatMatrix fitted;
    if (codebook == nullptr) {
      fitted = FloatMatrix(level_sizes[level], residuals.cols);
      UpdateCentroids(residuals, codes, fitted, nullptr);
    }
    const FloatMatrix& centroids = codebook != nullptr ? codebook->centroids(level) : fitted;
    for (int64_t i = 0; i < residuals.rows; ++i) {
      for (int64_t d = 0; d < residuals.cols; ++d) residuals.row(i)[d] -= centroids.row(codes[i])[d];
    }
    report.error = report.levels.back().error = spread > 0 ? Energy(residuals) / spread : 0;
  }
  return report;
}

nlohmann::ordered_json ToJson(const AssignmentReport& report) {
  // nlohmann writes NaN as null.
  nlohmann::ordered_json levels = nlohmann::ordered_json::array();
  for (const LevelReport& level : report.levels) {
    levels.push_back({{"size", level.size},
                      {"used", level.used},
                      {"entropy", level.entropy},
                      {"max_entropy", std::log(static_cast<double>(level.size))},
                      {"largest", level.largest},
                      {"error", level.error}});
  }
  return {{"error", report.error},
          {"items", report.items},
          {"distinct_sids", report.distinct_sids},
          {"largest_sid", report.largest_sid},
          {"colliding_items", report.colliding_items},
          {"levels", std::move(levels)}};
}

std::string ErrorText(double error) { return std::isnan(error) ? "-" : absl::StrFormat("%.4f", error); }

}  // namespace

absl::StatusOr<TokenizerReport> ReportTokenizer(const Codebook& codebook, absl::Span<const Sid> sids,
                                                const FloatMatrix* vectors, uint64_t seed) {
  if (sids.empty()) return absl::InvalidArgumentError("tokenizer report: no items");
  if (!codebook.has_centroids()) vectors = nullptr;
  if (vectors != nullptr && (vectors->rows != static_cast<int64_t>(sids.size()) || vectors->cols != codebook.dim())) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer report: vectors are [", vectors->rows, ",", vectors->cols,
                                                   "], must be [", sids.size(), ",", codebook.dim(), "]"));
  }
  for (const Sid& sid : sids) BEAMLINE_RETURN_IF_ERROR(codebook.CheckSid(sid));
  TokenizerReport report;
  report.tokenizer = Report(codebook.level_sizes(), sids, vectors, &codebook);
  RandomSource random(seed, 0);
  std::vector<Sid> drawn(sids.size());
  for (Sid& sid : drawn) {
    for (const uint32_t size : codebook.level_sizes()) sid.push_back(static_cast<Code>(random.Below(size)));
  }
  report.random = Report(codebook.level_sizes(), drawn, vectors, nullptr);
  return report;
}

std::string ReportText(const TokenizerReport& report) {
  std::string text = absl::StrFormat("%-22s %12s %12s\n", "", "tokenizer", "random");
  const AssignmentReport& t = report.tokenizer;
  const AssignmentReport& r = report.random;
  const auto line = [&text](const std::string& label, const std::string& a, const std::string& b) {
    absl::StrAppendFormat(&text, "%-22s %12s %12s\n", label, a, b);
  };
  line("items", absl::StrCat(t.items), absl::StrCat(r.items));
  line("distinct SIDs", absl::StrCat(t.distinct_sids), absl::StrCat(r.distinct_sids));
  line("items sharing a SID", absl::StrCat(t.colliding_items), absl::StrCat(r.colliding_items));
  line("most items of a SID", absl::StrCat(t.largest_sid), absl::StrCat(r.largest_sid));
  line("reconstruction error", ErrorText(t.error), ErrorText(r.error));
  for (size_t level = 0; level < t.levels.size(); ++level) {
    const LevelReport& a = t.levels[level];
    const LevelReport& b = r.levels[level];
    const std::string name = absl::StrCat("level ", level + 1, " ");
    line(absl::StrCat(name, "codes used"), absl::StrCat(a.used, "/", a.size), absl::StrCat(b.used, "/", b.size));
    line(absl::StrCat(name, "entropy"), absl::StrFormat("%.3f", a.entropy), absl::StrFormat("%.3f", b.entropy));
    line(absl::StrCat(name, "largest code"), absl::StrCat(a.largest), absl::StrCat(b.largest));
    line(absl::StrCat(name, "error after"), ErrorText(a.error), ErrorText(b.error));
  }
  return text;
}

std::string ReportJson(const TokenizerReport& report) {
  const nlohmann::ordered_json json = {{"tokenizer", ToJson(report.tokenizer)}, {"random", ToJson(report.random)}};
  return json.dump(2) + "\n";
}

}  // namespace beamline::sid
