// SPDX-License-Identifier: Apache-2.0
//
// The error of a value outside its range, in one wording. (The server's own CheckRange says the same with the field,
// the limit and the value as an error detail, too.) Pure; thread-safe.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace beamline {

// INVALID_ARGUMENT, "<field>: <value><unit> is outside <low>..<high>", unless low <= value <= high.
inline absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high,
                               absl::string_view unit = "") {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", value, unit, " is outside ", low, "..", high));
}

}  // namespace beamline
