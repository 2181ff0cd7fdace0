// SPDX-License-Identifier: Apache-2.0
//
// What a search returns per kept leaf. A plain value, free of torch.
#pragma once

#include <cstdint>
#include <vector>

#include "beamline/types.h"

namespace beamline::decode {

struct Hypothesis {
  // Leaf of the trie that was searched: the snapshot's, where leaf ids number the SIDs in order, or the request's own
  // allow-list trie. CompiledEligibility::ResolveEligible takes it as it is.
  uint32_t leaf = 0;
  Sid sid;
  // [levels] of each code given the codes before it; [levels + 1] where the model scores an end token, which comes
  // last.
  std::vector<float> log_probs;
  float score = 0;  // their left-to-right fp32 sum
  float value = 0;  // the ranker's, of a model that has one (model/ranker.h)
};

}  // namespace beamline::decode
