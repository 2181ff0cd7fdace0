// SPDX-License-Identifier: Apache-2.0
//
// The learning rate of a step: linear warm-up to the peak, then half a cosine down to `final_fraction` of it
// (Loshchilov and Hutter 2017). A pure function of the step, so a resumed run needs no state for it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace beamline::train {

struct LearningRateSchedule {
  double peak = 1e-3;
  int64_t warmup_steps = 0;
  int64_t total_steps = 1;
  double final_fraction = 0.0;

  // `step` counts from 0. Steps past the total keep the last rate.
  double At(int64_t step) const {
    if (step < warmup_steps) return peak * static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
    const double span = static_cast<double>(std::max<int64_t>(1, total_steps - warmup_steps));
    const double done = std::min(1.0, static_cast<double>(step - warmup_steps) / span);
    return peak * (final_fraction + (1.0 - final_fraction) * 0.5 * (1.0 + std::cos(std::numbers::pi * done)));
  }
};

}  // namespace beamline::train
