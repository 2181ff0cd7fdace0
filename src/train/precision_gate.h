// SPDX-License-Identifier: Apache-2.0
//
// Measures a narrow precision (fp8, fp8_mixed, int8) for its quality gate (runtime/gate_report.h): what a trained model
// ranks first for held-out cases in it, in bf16 and in fp32. Pure functions.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "data/ranking_metrics.h"
#include "runtime/gate_report.h"
#include "train/item_ranker.h"

namespace beamline::train {

// Rankings of the same cases in the same order, with lists of runtime::kGateList.
struct PrecisionRankings {
  CaseRankings fp32, bf16, narrow;
};

// INVALID_ARGUMENT where the intervals of so few resamples say little: for whoever is about to rank for an hour.
absl::Status CheckGateBootstrap(const data::BootstrapOptions& bootstrap);

// The numbers of a report, without where it was measured. INVALID_ARGUMENT where the rankings do not fit together, or
// by CheckGateBootstrap; FAILED_PRECONDITION where bf16 has no target among its ten best: a share of nothing is no
// limit.
absl::StatusOr<runtime::PrecisionGateReport> ComparePrecisions(const std::string& dtype,
                                                               const PrecisionRankings& rankings,
                                                               const data::BootstrapOptions& bootstrap = {});

}  // namespace beamline::train
