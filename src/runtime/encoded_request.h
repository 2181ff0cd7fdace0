// SPDX-License-Identifier: Apache-2.0
//
// A request as the model sees it: ids only, made by runtime/feature_builder from events, user attributes and the
// catalogue, the same way in training and in serving. What the ids mean: model/feature_index.h. Plain values;
// thread-compatible.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "beamline/request.h"

namespace beamline::runtime {

// What an input is made from. Views: the caller keeps what they point to.
struct FeatureSource {
  std::string_view user_id;
  absl::Span<const UserAttribute> user_attributes;
  absl::Span<const Event> history;  // oldest first
};

// The kept elements of one pathway, oldest first.
struct EncodedPathway {
  int length = 0;
  std::vector<int32_t> features;  // [length, columns]
  std::vector<int32_t> order;     // [length] place in the history, from 0 at first_event
};

struct EncodedRequest {
  std::vector<int32_t> static_features;    // [static columns]; empty where the model has no static token
  std::array<EncodedPathway, 2> pathways;  // short-term, positive feedback: model::Pathway
  int first_event = 0;                     // index in the history of the oldest event that any pathway kept; t5: 0
  int seen_events = 0;                     // of the history: in any pathway
  int unknown_items = 0;                   // history items the catalogue does not have
  int dropped_events = 0;                  // events of others that no pathway takes

  int context_tokens() const { return (static_features.empty() ? 0 : 1) + pathways[0].length + pathways[1].length; }
};

// SHA-256 (hex) over everything the model reads; equal inputs and only they have equal digests.
std::string Digest(const EncodedRequest& request);

}  // namespace beamline::runtime
