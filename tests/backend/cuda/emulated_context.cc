// SPDX-License-Identifier: Apache-2.0
//
// The cuda backend over the emulator: its tensors say they are on the CPU, where the emulated device's memory is.
#include <iterator>

#include "backend/cuda/cuda_backend.h"
#include "backend/test_context.h"
#include "beamline/status.h"

namespace beamline::backend {

namespace cuda {

absl::StatusOr<const CublasLt*> LoadCublasLt() {
  static const CublasLt functions{cublasLtCreate,
                                  cublasLtGetVersion,
                                  cublasLtMatmulDescCreate,
                                  cublasLtMatmulDescDestroy,
                                  cublasLtMatmulDescSetAttribute,
                                  cublasLtMatrixLayoutCreate,
                                  cublasLtMatrixLayoutDestroy,
                                  cublasLtMatmulPreferenceCreate,
                                  cublasLtMatmulPreferenceDestroy,
                                  cublasLtMatmulPreferenceSetAttribute,
                                  cublasLtMatmulAlgoGetHeuristic,
                                  cublasLtMatmulAlgoCheck,
                                  cublasLtMatmul};
  return &functions;
}

}  // namespace cuda

std::unique_ptr<cuda::CudaBackend> MakeCudaTestBackend() {
  return *cuda::CudaBackend::Make(**cuda::LoadCublasLt(), c10::Device(c10::kCPU));
}

// "fp8" and "fp8_mixed", "fp8_scaled_after" as devices do it whose cuBLASLt has no scales for rows, and another "fp8"
// for whoever lets the emulator have no fast sums.
absl::StatusOr<Context> MakeCudaTestContext(absl::string_view dtype) {
  const auto make = [](cuda::Fp8 fp8) {
    return (*cuda::CudaBackend::Make(**cuda::LoadCublasLt(), c10::Device(c10::kCPU), fp8)).release();
  };
  static const cuda::CudaBackend* const backends[] = {
      make({}), make({Fp8Products::kAll}), make({Fp8Products::kAll, cuda::Fp8Scaling::kAfter}),
      make({Fp8Products::kAllButSelfAttention}), make({Fp8Products::kAll})};
  Context ctx;
  constexpr absl::string_view kFp8[] = {"fp8", "fp8_scaled_after", "fp8_mixed", "fp8_exact_sums"};
  ctx.backend = backends[0];
  for (size_t i = 0; i < std::size(kFp8); ++i) {
    if (dtype == kFp8[i]) ctx.backend = backends[i + 1];
  }
  ctx.dtype = dtype == "bf16" || ctx.backend != backends[0] ? c10::kBFloat16
              : dtype == "fp16"                             ? c10::kHalf
                                                            : c10::kFloat;
  return ctx;
}

}  // namespace beamline::backend
