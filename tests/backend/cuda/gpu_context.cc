// SPDX-License-Identifier: Apache-2.0
//
// The cuda backend on the machine's GPU.
#include "backend/test_context.h"

namespace beamline::backend {

absl::StatusOr<Context> MakeCudaTestContext(absl::string_view dtype) { return MakeContext("cuda", dtype, "cuda"); }

}  // namespace beamline::backend
