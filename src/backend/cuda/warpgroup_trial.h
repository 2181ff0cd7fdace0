// SPDX-License-Identifier: Apache-2.0
//
// Whether the kernels that use wgmma give what the portable ones give, on this device with this build.
#pragma once

#include <c10/core/Device.h>

#include "absl/status/status.h"

namespace beamline::backend::cuda {

// Compares attention for every type and head size that has a kernel, the experts' product and the head, in blocks of
// one warpgroup and of two; some hundred milliseconds, most of them of the host, in memory of its own, on the null
// stream. REQUIRES: kernels that were prepared (HeadProductPrepare() says whether the device has them). INTERNAL says
// what differs by how much.
absl::Status TryWarpgroups(c10::Device where);

}  // namespace beamline::backend::cuda
