// SPDX-License-Identifier: Apache-2.0
//
// Measurements for people (text) and for programs (JSON; bench/README.md says what the fields mean). Pure.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "loadgen/measurement.h"

namespace beamline::loadgen {

// "open loop 200/s, beam 32, history 50".
std::string NameOf(const Cell& cell);

// A few lines.
std::string Describe(const Measurement& measured);

nlohmann::json ToJson(const Measurement& measured);

// What the numbers depend on besides the target: CPU, cores, load average, kernel.
nlohmann::json DescribeMachine();

// One line per request: due, sent and answered (ms), status, beams, step of narrowing; tab-separated under a header.
std::string SamplesToText(const Cell& cell, const RunResult& run);

}  // namespace beamline::loadgen
