// SPDX-License-Identifier: Apache-2.0
//
// The limits of an option that takes a number: they stand in the help, and an error names the value and the limits. A
// library that takes the number checks it once more. Pure functions.
#pragma once

#include <limits>
#include <string>

namespace beamline::cli {

// Both inclusive. At most 2^53, so that they are exact, or infinity: whatever the type holds.
struct Limits {
  double low = 0;
  double high = std::numeric_limits<double>::infinity();
};

enum class NumberKind { kReal, kSigned, kUnsigned };

// "1..4096", "0 or more"; empty where the limits say nothing.
std::string FormatLimits(Limits limits);

// Puts the number that `text` says in plain form (10 for 010), or says why there is none within the limits.
// Empty: all is well.
std::string CheckNumber(Limits limits, NumberKind kind, std::string* text);

}  // namespace beamline::cli
