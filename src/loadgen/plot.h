// SPDX-License-Identifier: Apache-2.0
//
// Measurements as one SVG without outside resources. Several: latency quantiles with their intervals over the cells,
// and beneath them throughput and goodput. One: its latency over the share of requests, on a scale of nines. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "loadgen/measurement.h"

namespace beamline::loadgen {

// REQUIRES: at least one measurement.
std::string PlotSvg(absl::Span<const Measurement> measurements, const std::string& title);

}  // namespace beamline::loadgen
