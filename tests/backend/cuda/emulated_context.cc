// SPDX-License-Identifier: Apache-2.0
//
// The cuda backend over the emulator: its tensors say they are on the CPU, where the emulated device's memory is.
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

absl::StatusOr<Context> MakeCudaTestContext(absl::string_view dtype) {
  static const auto* const backend = [] {
    return (*cuda::CudaBackend::Make(**cuda::LoadCublasLt(), c10::Device(c10::kCPU))).release();
  }();
  Context ctx;
  ctx.backend = backend;
  ctx.dtype = dtype == "bf16" ? c10::kBFloat16 : dtype == "fp16" ? c10::kHalf : c10::kFloat;
  return ctx;
}

}  // namespace beamline::backend
