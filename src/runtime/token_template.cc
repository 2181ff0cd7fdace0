// SPDX-License-Identifier: Apache-2.0
#include "runtime/token_template.h"

#include <numeric>
#include <optional>
#include <vector>

namespace beamline::runtime {

EncodedRequest BuildTokens(const model::ModelConfig& config, absl::Span<const Event> history,
                           const Catalogue& catalogue) {
  const model::T5Template& input = config.t5.input;
  EncodedRequest request;
  std::vector<Sid> newest;  // newest first
  for (auto event = history.rbegin(); event != history.rend(); ++event) {
    const std::optional<Sid> sid = catalogue.Encode(event->item);
    if (!sid.has_value()) {
      ++request.unknown_items;
    } else if (static_cast<int>(newest.size()) < input.max_items) {
      newest.push_back(*sid);
    } else {
      ++request.dropped_events;
    }
  }

  request.seen_events = static_cast<int>(newest.size());
  EncodedPathway& tokens = request.pathways[0];
  tokens.features = input.prefix;
  for (auto sid = newest.rbegin(); sid != newest.rend(); ++sid) {
    for (int level = 0; level < config.levels(); ++level) {
      tokens.features.push_back(config.first_code(level) + static_cast<int32_t>((*sid)[level]));
    }
  }
  tokens.features.insert(tokens.features.end(), input.suffix.begin(), input.suffix.end());
  tokens.length = static_cast<int>(tokens.features.size());
  tokens.order.resize(tokens.length);
  std::iota(tokens.order.begin(), tokens.order.end(), 0);
  return request;
}

}  // namespace beamline::runtime
