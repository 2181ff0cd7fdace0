// SPDX-License-Identifier: Apache-2.0
//
// Inverted dropout from the context's generator, so that a training run repeats from its seed.
#pragma once

#include <ATen/core/Tensor.h>

#include "backend/context.h"

namespace beamline::backend {

// x itself outside training.
at::Tensor ApplyDropout(Context& ctx, const at::Tensor& x);

}  // namespace beamline::backend
