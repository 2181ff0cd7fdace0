// SPDX-License-Identifier: Apache-2.0
//
// Everything that can be wrong with options or a request and is visible without the catalogue, as pure functions. An
// error is INVALID_ARGUMENT and names the field by its path (`history[3].play_time_ms`), its value and the limit; the
// first one found is reported. Nothing is allocated from a number before it was checked.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "beamline/engine.h"
#include "beamline/limits.h"
#include "beamline/request.h"

namespace beamline::engine {

absl::Status CheckOptions(const EngineOptions& options);

// `levels`: of the model.
absl::Status CheckRequest(const RecommendRequest& request, const EngineOptions& options, int levels);

// Events as CheckRequest wants them: known times (not 0) in order, labels and spans in range. `field` is the path.
absl::Status CheckHistory(absl::Span<const Event> history, int max_events, absl::string_view field);

// The width of every level. REQUIRES: CheckRequest passed.
std::vector<int> BeamWidths(const RecommendRequest& request, const EngineOptions& options, int levels);

}  // namespace beamline::engine
