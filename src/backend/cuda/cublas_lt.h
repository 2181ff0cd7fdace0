// SPDX-License-Identifier: Apache-2.0
//
// The functions of cuBLASLt that Beamline calls, found when a backend is made: the binary runs where there is none.
// The tests' emulator has a version of its own.
#pragma once

#include <cublasLt.h>

#include "absl/status/statusor.h"

namespace beamline::backend::cuda {

struct CublasLt {
  decltype(&cublasLtCreate) create = nullptr;
  decltype(&cublasLtGetVersion) version = nullptr;
  decltype(&cublasLtMatmulDescCreate) desc_create = nullptr;
  decltype(&cublasLtMatmulDescDestroy) desc_destroy = nullptr;
  decltype(&cublasLtMatmulDescSetAttribute) desc_set = nullptr;
  decltype(&cublasLtMatrixLayoutCreate) layout_create = nullptr;
  decltype(&cublasLtMatrixLayoutDestroy) layout_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceCreate) preference_create = nullptr;
  decltype(&cublasLtMatmulPreferenceDestroy) preference_destroy = nullptr;
  decltype(&cublasLtMatmulPreferenceSetAttribute) preference_set = nullptr;
  decltype(&cublasLtMatmulAlgoGetHeuristic) heuristic = nullptr;
  decltype(&cublasLtMatmulAlgoCheck) check = nullptr;
  decltype(&cublasLtMatmul) matmul = nullptr;
};

// Loaded once for the process. FAILED_PRECONDITION says what the loader says.
absl::StatusOr<const CublasLt*> LoadCublasLt();

}  // namespace beamline::backend::cuda
