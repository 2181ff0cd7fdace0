// SPDX-License-Identifier: Apache-2.0
//
// Training options that suit a model preset (model/config.h): what was found to work, with the measurements in
// bench/results/. Unknown names (one's own configuration) get the defaults. Pure.
#pragma once

#include <string>

#include "train/train_options.h"

namespace beamline::train {

TrainOptions PresetTrainOptions(const std::string& preset);

}  // namespace beamline::train
