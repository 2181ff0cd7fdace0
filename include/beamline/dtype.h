// SPDX-License-Identifier: Apache-2.0
//
// Words for what products with weights are computed in: "fp32", "bf16", "fp16", "fp8", "fp8_mixed" and "int8". Which
// device and backend has which: EngineOptions::dtype (engine.h). Pure.
#pragma once

#include "absl/strings/string_view.h"

namespace beamline {

// E4M3 with one scale for each row of activations and each output channel of a weight, beside bf16. "fp8": all products
// with the weights of attention and feed-forward; "fp8_mixed": all of these but self-attention's, whose scores small
// models lose most by. The decoder's first step and its trunk, which have a row or a few for each request, stay in bf16
// (bench/results/fp8_gate.md).
inline bool IsFp8(absl::string_view dtype) { return dtype == "fp8" || dtype == "fp8_mixed"; }

}  // namespace beamline
