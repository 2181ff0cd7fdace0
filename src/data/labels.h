// SPDX-License-Identifier: Apache-2.0
//
// Names of beamline::Label in tables and flags: click, like, follow, comment, forward, hate, long_view, profile_enter;
// several are joined by '|', none is the empty string. Pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace beamline::data {

// INVALID_ARGUMENT names the unknown label and the known ones.
absl::StatusOr<uint32_t> ParseLabels(std::string_view text);

// Names in the order of their bits.
std::string FormatLabels(uint32_t labels);

}  // namespace beamline::data
