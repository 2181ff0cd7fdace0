// SPDX-License-Identifier: Apache-2.0
#include "runtime/gate_report.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <tuple>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_object_reader.h"
#include "beamline/status.h"

namespace beamline::runtime {
namespace {

using nlohmann::json;

// Raised, too, where a precision rounds otherwise than it did, since older reports measured something else. 2: FP8
// without the decoder's first step and trunk. 3: says whose requests.
constexpr int kSchemaVersion = 3;
constexpr char kKind[] = "precision_gate";
constexpr size_t kMaxWord = 64;
// What none of n requests showed may still happen to one in n / 3 (the 95 % bound of the rule of three): an interval of
// few requests without a difference would have no width.
constexpr double kRuleOfThree = 3;
constexpr double kRounding = 1e-6;  // of means that are taken in different orders

std::string RecallFailure(const PrecisionGateReport& report, double share) {
  const data::Interval& interval = report.recall_10_difference;
  const double limit = share * report.bf16_recall_10, requests = static_cast<double>(report.requests);
  const bool outside = interval.low < -limit || interval.high > limit;
  if (!outside && kRuleOfThree / requests <= limit) return "";
  std::string text = absl::StrFormat("R@10 differs from bf16's %.4f by %+.4f [%+.4f, %+.4f]", report.bf16_recall_10,
                                     interval.mean, interval.low, interval.high);
  if (outside) absl::StrAppendFormat(&text, ", which is not within %g %% of it (%.4f)", 100 * share, limit);
  const double room = limit - std::abs(interval.mean);
  if (room <= 0) return text;
  // The half-width falls with the root of the requests.
  const double wider = (interval.high - interval.low) / 2 / room;
  const double needed = std::max({requests * wider * wider, kRuleOfThree / limit, requests + 1});
  absl::StrAppendFormat(&text, ": %d requests are too few to tell; should the difference stay, about %.0f would do",
                        report.requests, needed);
  if (report.split != "both") absl::StrAppend(&text, "; --split both asks for two of each user");
  return text;
}

json IntervalToJson(const data::Interval& interval) {
  return {{"mean", interval.mean}, {"low", interval.low}, {"high", interval.high}};
}

struct Within {
  double low, high;
};

void ReadNumber(JsonObjectReader& reader, const char* key, const Within& within, double& out) {
  const size_t before = reader.problems().size();
  reader.Double(key, out);
  if (reader.problems().size() == before && !(out >= within.low && out <= within.high)) {
    reader.Problem(key, absl::StrCat("must lie in [", within.low, ", ", within.high, "], is ", out));
  }
}

// They are shown on terminals and in logs.
void ReadWord(JsonObjectReader& reader, const char* key, std::string& out) {
  const size_t before = reader.problems().size();
  reader.String(key, out);
  const bool plain = std::all_of(out.begin(), out.end(), [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == ':' || c == '_' || c == '-';
  });
  if (reader.problems().size() == before && (!plain || out.empty() || out.size() > kMaxWord)) {
    reader.Problem(key,
                   absl::StrCat("must have 1..", kMaxWord, " letters, digits, '.', ':', '_' or '-', is '", out, "'"));
  }
}

void ReadOneOf(JsonObjectReader& reader, const char* key, std::initializer_list<absl::string_view> known,
               std::string& out) {
  const size_t before = reader.problems().size();
  ReadWord(reader, key, out);
  if (reader.problems().size() == before && std::find(known.begin(), known.end(), out) == known.end()) {
    reader.Problem(key, absl::StrCat("must be ", absl::StrJoin(known, " or "), ", is '", out, "'"));
  }
}

// Numbers that one measurement gives together.
void CheckAgreement(const PrecisionGateReport& report, std::vector<std::string>& problems) {
  const data::Interval& difference = report.recall_10_difference;
  const double mean = report.recall_10 - report.bf16_recall_10;
  if (std::abs(difference.mean - mean) > kRounding) {
    problems.push_back(
        absl::StrCat("recall_10_difference.mean: is ", difference.mean, ", recall_10 - bf16_recall_10 ", mean));
  }
  if (difference.low > difference.mean + kRounding || difference.high < difference.mean - kRounding) {
    problems.push_back(absl::StrCat("recall_10_difference: its mean, ", difference.mean, ", is not in [",
                                    difference.low, ", ", difference.high, "]"));
  }
}

PrecisionGateReport ReadReport(const json& root, std::vector<std::string>& problems) {
  PrecisionGateReport report;
  JsonObjectReader reader(root, "", problems);
  std::string kind;
  int schema = 0;
  reader.String("kind", kind);
  reader.Int("schema_version", schema);
  if (problems.empty() && kind != kKind) reader.Problem("kind", absl::StrCat("must be '", kKind, "'"));
  if (problems.empty() && schema != kSchemaVersion) {
    reader.Problem("schema_version", absl::StrCat("is ", schema, ", this program reads ", kSchemaVersion));
  }
  if (!problems.empty()) return report;  // another document's fields would say nothing
  ReadOneOf(reader, "dtype", {"fp8", "fp8_mixed", "int8"}, report.dtype);
  ReadWord(reader, "weights_sha256", report.weights_sha256);
  ReadWord(reader, "config_sha256", report.config_sha256);
  ReadWord(reader, "device", report.device);
  ReadWord(reader, "backend", report.backend);
  ReadOneOf(reader, "split", {"test", "validation", "both"}, report.split);
  reader.Int("beam", report.beam);
  if (reader.Has("beam") && report.beam < kGateList) {
    reader.Problem("beam", absl::StrCat("must be at least ", kGateList, ", the items that are compared"));
  }
  reader.Int("max_users", report.max_users);
  reader.Int("seed", report.seed);
  if (report.max_users < 0) reader.Problem("max_users", "must be at least 0");
  reader.Int("requests", report.requests);
  if (reader.Has("requests") && report.requests < 1) reader.Problem("requests", "must be at least 1");
  for (const auto& [key, out] :
       {std::pair("top_1", &report.top_1), std::pair("overlap", &report.overlap),
        std::pair("bf16_overlap", &report.bf16_overlap), std::pair("recall_10", &report.recall_10),
        std::pair("fp32_recall_10", &report.fp32_recall_10)}) {
    ReadNumber(reader, key, {0, 1}, *out);
  }
  ReadNumber(reader, "bf16_recall_10", {1e-9, 1}, report.bf16_recall_10);
  if (const json* difference = reader.Find("recall_10_difference", true); difference != nullptr) {
    JsonObjectReader interval(*difference, "recall_10_difference", problems);
    for (const auto& [key, out] :
         {std::pair("mean", &report.recall_10_difference.mean), std::pair("low", &report.recall_10_difference.low),
          std::pair("high", &report.recall_10_difference.high)}) {
      ReadNumber(interval, key, {-1, 1}, *out);
    }
    interval.Finish();
  }
  for (const char* said : {"limits", "passed", "failures"}) reader.Find(said, false);  // for people
  reader.Finish();
  if (problems.empty()) CheckAgreement(report, problems);
  return report;
}

}  // namespace

std::vector<std::string> GateFailures(const PrecisionGateReport& report, const PrecisionGateLimits& limits) {
  std::vector<std::string> failures;
  if (report.top_1 < limits.top_1) {
    failures.push_back(absl::StrFormat("the best item is bf16's for %.4f of the requests, less than %.4f", report.top_1,
                                       limits.top_1));
  }
  if (report.overlap < report.bf16_overlap - limits.overlap) {
    failures.push_back(
        absl::StrFormat("the overlap with fp32's %d best is %.4f, bf16's is %.4f: more than %.4f over it", kGateList,
                        report.overlap, report.bf16_overlap, limits.overlap));
  }
  if (std::string recall = RecallFailure(report, limits.recall_10); !recall.empty()) failures.push_back(recall);
  return failures;
}

std::string GateTable(const PrecisionGateReport& report) {
  const data::Interval& difference = report.recall_10_difference;
  const std::string most = report.max_users == 0 ? "" : absl::StrFormat("at most %d users of each, ", report.max_users);
  std::string table = absl::StrFormat(
      "%s beside bf16 and fp32, %d requests of split %s (%sseed %d), beam %d, device %s, backend %s\n"
      "weights %s\n"
      "best item is bf16's       %.4f\n"
      "overlap of the %d best with fp32's: %s %.4f, bf16 %.4f\n"
      "R@10: %s %.4f, bf16 %.4f, fp32 %.4f; %s - bf16 %+.4f [%+.4f, %+.4f]\n",
      report.dtype, report.requests, report.split, most, report.seed, report.beam, report.device, report.backend,
      report.weights_sha256, report.top_1, kGateList, report.dtype, report.overlap, report.bf16_overlap, report.dtype,
      report.recall_10, report.bf16_recall_10, report.fp32_recall_10, report.dtype, difference.mean, difference.low,
      difference.high);
  const std::vector<std::string> failures = GateFailures(report);
  if (failures.empty()) return table + "passed\n";
  for (const std::string& failure : failures) absl::StrAppend(&table, "missed: ", failure, "\n");
  return table;
}

json GateToJson(const PrecisionGateReport& report) {
  const PrecisionGateLimits limits;
  const std::vector<std::string> failures = GateFailures(report, limits);
  return {{"kind", kKind},
          {"schema_version", kSchemaVersion},
          {"dtype", report.dtype},
          {"weights_sha256", report.weights_sha256},
          {"config_sha256", report.config_sha256},
          {"device", report.device},
          {"backend", report.backend},
          {"split", report.split},
          {"beam", report.beam},
          {"max_users", report.max_users},
          {"seed", report.seed},
          {"requests", report.requests},
          {"top_1", report.top_1},
          {"overlap", report.overlap},
          {"bf16_overlap", report.bf16_overlap},
          {"recall_10", report.recall_10},
          {"bf16_recall_10", report.bf16_recall_10},
          {"fp32_recall_10", report.fp32_recall_10},
          {"recall_10_difference", IntervalToJson(report.recall_10_difference)},
          {"limits", {{"top_1", limits.top_1}, {"overlap", limits.overlap}, {"recall_10", limits.recall_10}}},
          {"passed", failures.empty()},
          {"failures", failures}};
}

bool IsGateJson(const json& root) { return root.is_object() && root.contains("kind") && root.at("kind") == kKind; }

absl::StatusOr<PrecisionGateReport> ParseGate(absl::string_view text, absl::string_view source) {
  BEAMLINE_ASSIGN_OR_RETURN(const json root, ParseJson(text, source, {.max_depth = 3, .max_bytes = kMaxGateBytes}));
  std::vector<std::string> problems;
  PrecisionGateReport report = ReadReport(root, problems);
  if (problems.empty()) return report;
  return absl::InvalidArgumentError(
      absl::StrCat(source, ": not written by `beamline evaluate --gate TYPE --out`: ", absl::StrJoin(problems, "; ")));
}

absl::StatusOr<PrecisionGateReport> ReadGate(const std::filesystem::path& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxGateBytes));
  return ParseGate(text, path.string());
}

absl::Status CheckGate(const PrecisionGateReport& report, const BundleManifest& manifest) {
  for (const auto& [what, file, measured] : {std::tuple("weights", kWeightsFile, &report.weights_sha256),
                                             std::tuple("configuration", kConfigFile, &report.config_sha256)}) {
    const std::string& own = manifest.files.at(file).sha256;
    if (*measured == own) continue;
    return absl::FailedPreconditionError(
        absl::StrCat("the gate is of other ", what, " (SHA-256 ", *measured, ") than ", file, " (", own, ")"));
  }
  const std::vector<std::string> failures = GateFailures(report);
  if (failures.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the gate of ", report.dtype, " was not passed: ", absl::StrJoin(failures, "; ")));
}

}  // namespace beamline::runtime
