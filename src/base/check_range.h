// SPDX-License-Identifier: Apache-2.0
//
// The error of a value outside its range, in one wording. (The server's CheckValue says the same with the field,
// the limit and the value as an error detail, too.) Pure; thread-safe.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace beamline {

struct Bounds {
  int64_t low = 0;
  int64_t high = 0;
  absl::string_view unit = "";  // "items"
};

// INVALID_ARGUMENT, "<field>: <value> <unit> is outside <low>..<high>", unless low <= value <= high.
inline absl::Status CheckRange(absl::string_view field, int64_t value, const Bounds& bounds) {
  if (value >= bounds.low && value <= bounds.high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, bounds.unit.empty() ? "" : " ", bounds.unit,
                                                 " is outside ", bounds.low, "..", bounds.high));
}

}  // namespace beamline
