// SPDX-License-Identifier: Apache-2.0
//
// Names of devices: "cpu", "cuda" (the first GPU), "cuda:N" (from 0). Pure functions; errors name the device.
#pragma once

#include <c10/core/Device.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace beamline::backend {

// INVALID_ARGUMENT for any other name, and for a number beyond what a c10::Device holds, which would wrap around.
absl::StatusOr<c10::Device> ParseDeviceName(absl::string_view name);

// INVALID_ARGUMENT unless a machine with so many GPUs has the device, which `name` means.
absl::Status CheckDeviceIsThere(absl::string_view name, c10::Device device, int gpus);

}  // namespace beamline::backend
