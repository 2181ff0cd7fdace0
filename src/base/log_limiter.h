// SPDX-License-Identifier: Apache-2.0
//
// How many lines a class of messages may write: `burst` at once, then `per_second`. A token bucket per class; classes
// are constants of the program, so there are few. Pure but for its memory; not thread-safe.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace beamline {

class LogLimiter {
 public:
  explicit LogLimiter(double per_second = 10, double burst = 10) : per_second_(per_second), burst_(burst) {}

  // Nothing: leave the line out. Else how many of its class were left out since the last one written.
  std::optional<uint64_t> Admit(absl::string_view message_class, absl::Time now) {
    auto found = classes_.find(message_class);
    if (found == classes_.end()) {
      found = classes_.emplace(std::string(message_class), Class{burst_, now, 0}).first;
    }
    Class& state = found->second;
    // A clock that steps back gives nothing, and takes nothing.
    const double passed = std::max(0.0, absl::ToDoubleSeconds(now - state.seen));
    state.tokens = std::min(burst_, state.tokens + passed * per_second_);
    state.seen = now;
    if (state.tokens < 1) {
      ++state.left_out;
      return std::nullopt;
    }
    state.tokens -= 1;
    const uint64_t left_out = state.left_out;
    state.left_out = 0;
    return left_out;
  }

 private:
  struct Class {
    double tokens;
    absl::Time seen;
    uint64_t left_out;
  };
  const double per_second_, burst_;
  std::map<std::string, Class, std::less<>> classes_;
};

}  // namespace beamline
