// SPDX-License-Identifier: Apache-2.0
//
// What a search returns per kept leaf. A plain value, free of torch.
#pragma once

#include <cstdint>
#include <vector>

#include "beamline/types.h"

namespace beamline::decode {

struct Hypothesis {
  uint32_t leaf = 0;  // leaf id in the snapshot: its SIDs in order
  Sid sid;
  std::vector<float> log_probs;  // [levels], of each code given the codes before it
  float score = 0;               // their left-to-right fp32 sum
};

}  // namespace beamline::decode
