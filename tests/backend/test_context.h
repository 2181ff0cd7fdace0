// SPDX-License-Identifier: Apache-2.0
//
// What the tests of backends and models run on. The same suites are compiled twice: for the backends every binary has,
// and, with BEAMLINE_TEST_CUDA, for the cuda backend: on a GPU, or where kernels are emulated.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "backend/context.h"

namespace beamline::backend {

#if defined(BEAMLINE_EMULATED_CUBLASLT)
namespace cuda {
class CudaBackend;
}
std::unique_ptr<cuda::CudaBackend> MakeCudaTestBackend();  // another one
#endif

#if defined(BEAMLINE_TEST_CUDA)
inline constexpr int kUnit = 8;  // what widths are multiples of
absl::StatusOr<Context> MakeCudaTestContext(absl::string_view dtype);
#else
inline constexpr int kUnit = 1;
#endif

// The next width that a backend under test takes.
constexpr int Fit(int width) { return (width + kUnit - 1) / kUnit * kUnit; }

inline absl::StatusOr<Context> MakeTestContext(absl::string_view device, absl::string_view dtype,
                                               absl::string_view backend) {
#if defined(BEAMLINE_TEST_CUDA)
  if (backend == "cuda") return MakeCudaTestContext(dtype);
#endif
  return MakeContext(device, dtype, backend);
}

}  // namespace beamline::backend
