// SPDX-License-Identifier: Apache-2.0
//
// The cuda backend of a device: made at its first use, living as long as the process. No CUDA header is seen here.
#pragma once

#include <c10/core/Device.h>

#include "absl/status/statusor.h"
#include "backend/backend.h"
#include "backend/fp8_products.h"

namespace beamline::backend::cuda {

// The one that computes these products in FP8 (fp8.h). FAILED_PRECONDITION says why the device or cuBLASLt cannot be
// used. Thread-safe.
absl::StatusOr<const Backend*> BackendOf(c10::Device device, Fp8Products products);

}  // namespace beamline::backend::cuda
