// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/status.h"
#include "beamline/parallel.h"

namespace beamline::parallel {

// INVALID_ARGUMENT with the first field that is wrong ("parallel.rank: ..."), its limits and its value. Pure.
absl::Status CheckOptions(const ParallelOptions& options);

}  // namespace beamline::parallel
