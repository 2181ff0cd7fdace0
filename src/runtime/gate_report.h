// SPDX-License-Identifier: Apache-2.0
//
// gate.json: what `beamline evaluate --gate` measured of a narrow precision (fp8, fp8_mixed, int8) of one file of
// weights, beside bf16, which it is to replace, and fp32, which both round. A bundle may hold one (`beamline pack
// --gate`), and is loaded in fp8 or fp8_mixed only with one of that, of its own weights, that passed (bundle.h). int8
// needs none: its sums are exact, its loss is that of rounding alone, and `evaluate --gate int8` measures it for
// whoever asks. Whether a report passed is never read from the file, but follows from its numbers and the limits below.
// Pure functions but for ReadGate.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "beamline/dtype.h"
#include "data/ranking_metrics.h"
#include "runtime/bundle_manifest.h"

namespace beamline::runtime {

inline constexpr int kGateList = 32;  // items of a list that are compared
inline constexpr uint64_t kMaxGateBytes = 64 << 10;

struct PrecisionGateLimits {
  double top_1 = 0.97;      // least share of requests whose best item is bf16's
  double overlap = 0.05;    // of the list with fp32's: at most this much under bf16's
  double recall_10 = 0.02;  // of bf16's R@10: the paired interval of the difference to it lies within +- this share
};

struct PrecisionGateReport {
  std::string dtype;
  std::string weights_sha256;          // of the model.safetensors that was measured
  std::string config_sha256;           // and of its config.json, whose ranker's weights order what is served
  std::string device, backend, split;  // where it ran, and which part of the log was held out
  int beam = 0;
  int64_t max_users = 0;  // 0: all; else at most so many of each split, drawn by
  uint64_t seed = 0;      // which the interval's resamples are drawn by, too
  int64_t requests = 0;
  double top_1 = 0;                      // share of requests whose best item is bf16's
  double overlap = 0, bf16_overlap = 0;  // mean share of fp32's list that is in theirs
  double recall_10 = 0, bf16_recall_10 = 0, fp32_recall_10 = 0;
  data::Interval recall_10_difference;  // to bf16, paired, 95 %
};

// In words, one for each limit that is missed; empty: it passes. Where R@10 is missed for want of requests alone, it
// says about how many would do. REQUIRES requests and bf16_recall_10 above 0.
std::vector<std::string> GateFailures(const PrecisionGateReport& report, const PrecisionGateLimits& limits = {});

std::string GateTable(const PrecisionGateReport& report);  // for a terminal, with the verdict

nlohmann::json GateToJson(const PrecisionGateReport& report);
bool IsGateJson(const nlohmann::json& json);  // by its "kind"
// INVALID_ARGUMENT names every field that is missing, unknown, out of range or at odds with the others; `source` opens
// the message.
absl::StatusOr<PrecisionGateReport> ParseGate(absl::string_view json, absl::string_view source);
absl::StatusOr<PrecisionGateReport> ReadGate(const std::filesystem::path& path);

// FAILED_PRECONDITION, with the reason, unless the report is of a bundle's weights and configuration and passed.
absl::Status CheckGate(const PrecisionGateReport& report, const BundleManifest& manifest);

// Whether a model is loaded in this type only where a gate allows it.
inline bool IsGatedDtype(absl::string_view dtype) { return IsFp8(dtype); }

}  // namespace beamline::runtime
