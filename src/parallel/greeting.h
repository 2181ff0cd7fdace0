// SPDX-License-Identifier: Apache-2.0
//
// What ranks say to each other before they are a group, as lines of text. A joining rank's greeting: magic, rank, size,
// its port, then "field\tvalue" of the settings. The answer: welcome, token, then "address\tport" of each rank's
// listener; or: refused, why. From then on either side sends welcome when it has met everybody, or refused, why.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace beamline::parallel {

// What all ranks must agree on: field and value.
using Settings = std::vector<std::pair<std::string, std::string>>;

inline constexpr absl::string_view kWelcome = "welcome";

struct Greeting {
  int rank = 0;
  int size = 0;
  int port = 0;
  Settings settings;
};

std::string FormatGreeting(const Greeting& greeting);
// INVALID_ARGUMENT: no greeting.
absl::StatusOr<Greeting> ParseGreeting(const std::string& text);
// FAILED_PRECONDITION: what a joining rank has that does not fit rank 0. Of the other's values, which may be anything,
// the beginning.
absl::Status CompareGreetings(const Greeting& other, const Greeting& first);

std::string FormatRefusal(const absl::Status& why);
// Why, if the text is a refusal.
std::optional<std::string> ParseRefusal(absl::string_view text);

}  // namespace beamline::parallel
