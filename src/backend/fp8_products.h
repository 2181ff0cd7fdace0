// SPDX-License-Identifier: Apache-2.0
//
// Which of a layer's products with weights a backend computes in FP8 (beamline/dtype.h).
#pragma once

#include "absl/strings/string_view.h"

namespace beamline::backend {

enum class Fp8Products : int {
  kNone = 0,
  kAllButSelfAttention = 1,
  kAll = 2,
};

inline Fp8Products Fp8ProductsOf(absl::string_view dtype) {
  if (dtype == "fp8") return Fp8Products::kAll;
  return dtype == "fp8_mixed" ? Fp8Products::kAllButSelfAttention : Fp8Products::kNone;
}

}  // namespace beamline::backend
