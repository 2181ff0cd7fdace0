// SPDX-License-Identifier: Apache-2.0
#include "cli/number_limits.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace beamline::cli {
namespace {

constexpr double kExact = 9007199254740992;  // 2^53: every whole number up to it is a double

std::string Format(double number) {
  const bool whole = number == std::floor(number) && std::abs(number) <= kExact;
  return whole ? absl::StrCat(static_cast<int64_t>(number)) : absl::StrFormat("%.12g", number);
}

// In plain form, because CLI11 would take 010 for an octal 8.
bool Parse(const std::string& text, NumberKind kind, double* value, std::string* plain) {
  if (kind == NumberKind::kReal) {
    *plain = text;
    return text.find_first_not_of("0123456789+-.eE") == std::string::npos && absl::SimpleAtod(text, value);
  }
  int64_t number = 0;
  if (absl::SimpleAtoi(text, &number)) {
    *value = static_cast<double>(number);
    *plain = absl::StrCat(number);
    return true;
  }
  uint64_t large = 0;
  if (kind == NumberKind::kSigned || !absl::SimpleAtoi(text, &large)) return false;
  *value = static_cast<double>(large);
  *plain = absl::StrCat(large);
  return true;
}

}  // namespace

// Limits at the end of a type are no news to anybody.
std::string FormatLimits(Limits limits) {
  if (limits.high <= kExact) return absl::StrCat(Format(limits.low), "..", Format(limits.high));
  return limits.low < -kExact ? "" : absl::StrCat(Format(limits.low), " or more");
}

std::string CheckNumber(Limits limits, NumberKind kind, std::string* text) {
  double value = 0;
  std::string plain;
  if (Parse(*text, kind, &value, &plain) && value >= limits.low && value <= limits.high) {
    *text = plain;
    return "";
  }
  const std::string allowed = FormatLimits(limits);
  return absl::StrCat("'", *text, "' must be a ", kind == NumberKind::kReal ? "number" : "whole number",
                      allowed.empty() ? "" : ", ", allowed);
}

}  // namespace beamline::cli
