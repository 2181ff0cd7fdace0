// SPDX-License-Identifier: Apache-2.0
//
// A request as the model sees it: integers only, made by runtime/feature_builder from events, user attributes and the
// catalogue, the same way in training and in serving. Codes come from the catalogue snapshot the request is pinned to.
// A plain value; thread-compatible.
//
// A pathway (2506.13695, "input pathways") is a sequence of elements, oldest first, at most its window long. Features
// are stored column by column, so that a batch copies whole columns: feature f of element e is columns[f][e]. Which
// columns there are, their order and their value ranges are those of model::ModelConfig.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace beamline::runtime {

struct EncodedPathway {
  int length = 0;                             // elements, <= the pathway's window
  std::vector<std::vector<int32_t>> columns;  // [features][length]
};

struct EncodedRequest {
  std::vector<int32_t> user_features;    // one bucket per user attribute of the model; 0 = absent
  std::vector<EncodedPathway> pathways;  // in the order of the model's pathways (short-term, positive, ...)
  int unknown_items = 0;                 // history items neither the catalogue nor the vocabulary has
  int dropped_events = 0;                // oldest events beyond every window

  // Positions the encoder runs over: one for the user's static features and one per element.
  int context_tokens() const {
    int tokens = user_features.empty() ? 0 : 1;
    for (const EncodedPathway& pathway : pathways) tokens += pathway.length;
    return tokens;
  }
};

// SHA-256 (hex) over everything the model reads; equal requests and only they have equal digests.
std::string Digest(const EncodedRequest& request);

}  // namespace beamline::runtime
