// SPDX-License-Identifier: Apache-2.0
//
// Whether a backend computes with the sizes of a configuration, on each of the ranks that share the model: by numbers
// alone, before anything is read or allocated. Pure.
#pragma once

#include "absl/status/status.h"
#include "backend/model_limits.h"
#include "model/config.h"

namespace beamline::model {

// FAILED_PRECONDITION names each field of config.json that is beyond a limit, the limit and the value.
// REQUIRES: a valid configuration that so many ranks can share (CheckRanks).
absl::Status CheckSizes(const ModelConfig& config, const backend::ModelLimits& limits, int ranks);

}  // namespace beamline::model
