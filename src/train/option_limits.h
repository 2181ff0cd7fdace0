// SPDX-License-Identifier: Apache-2.0
//
// The limits of a training option, for whoever asks people for it. Validate (train_options.h, ranker_options.h) holds
// every option to them.
#pragma once

namespace beamline::train {

struct RankerOptions;
struct TrainOptions;

// Both inclusive.
struct OptionLimits {
  double low = 0;
  double high = 0;
};

// `field` is the address of a member of `options`.
OptionLimits LimitsOf(const TrainOptions& options, const void* field);
OptionLimits LimitsOf(const RankerOptions& options, const void* field);

}  // namespace beamline::train
