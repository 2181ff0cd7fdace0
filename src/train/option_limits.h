// SPDX-License-Identifier: Apache-2.0
//
// The limits of a training option, for whoever asks people for it. Validate (train_options.h) holds every option to
// them.
#pragma once

#include "train/train_options.h"

namespace beamline::train {

// Both inclusive.
struct OptionLimits {
  double low = 0;
  double high = 0;
};

// `field` is the address of a member of `options`.
OptionLimits LimitsOf(const TrainOptions& options, const void* field);

}  // namespace beamline::train
