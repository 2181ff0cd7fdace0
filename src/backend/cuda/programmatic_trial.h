// SPDX-License-Identifier: Apache-2.0
//
// Whether kernels that are launched early wait for those before them, on this device with this driver.
#pragma once

#include <string>

#include <c10/core/Device.h>

#include "absl/status/statusor.h"

namespace beamline::backend::cuda {

// Runs a chain of kernels and copies, each of which needs all that the one before wrote, from a stream and from a
// graph; some milliseconds, in memory and on a stream of its own, so that others may serve meanwhile. Returns what is
// wrong, empty where nothing is; INTERNAL or RESOURCE_EXHAUSTED where that cannot be told or the device is lost.
absl::StatusOr<std::string> TryProgrammaticLaunch(c10::Device where);

}  // namespace beamline::backend::cuda
