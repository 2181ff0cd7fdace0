// SPDX-License-Identifier: Apache-2.0
//
// Whether the kernels that use wgmma give what the portable ones give, on this device with this build.
#pragma once

#include <string>

#include <c10/core/Device.h>

#include "absl/status/statusor.h"

namespace beamline::backend::cuda {

// Compares attention for every type and head size that has a kernel, the experts' product, also with their gate, the
// head, in blocks of one warpgroup and of two, and dense products in every tile, also with gates; some hundred
// milliseconds, most of them of the host, in memory and on a stream of its own, so that others may serve meanwhile.
// Returns what differs by how much, empty where nothing does; INTERNAL or RESOURCE_EXHAUSTED where that cannot be told.
// REQUIRES: PrepareWarpgroups() (warpgroups_cuda.h).
absl::StatusOr<std::string> TryWarpgroups(c10::Device where);

}  // namespace beamline::backend::cuda
