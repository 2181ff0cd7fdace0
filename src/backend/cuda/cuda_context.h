// SPDX-License-Identifier: Apache-2.0
//
// The cuda backend of a device: made at its first use, living as long as the process. No CUDA header is seen here.
#pragma once

#include <c10/core/Device.h>

#include "absl/status/statusor.h"
#include "backend/backend.h"

namespace beamline::backend::cuda {

// With `fp8`, the one that multiplies with layers' weights in FP8 (fp8.h). FAILED_PRECONDITION says why the device or
// cuBLASLt cannot be used. Thread-safe.
absl::StatusOr<const Backend*> BackendOf(c10::Device device, bool fp8);

}  // namespace beamline::backend::cuda
