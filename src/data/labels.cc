// SPDX-License-Identifier: Apache-2.0
#include "data/labels.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "beamline/request.h"
#include "data/parse.h"

namespace beamline::data {
namespace {

// By bit number.
constexpr std::array<std::string_view, kNumLabels> kNames = {"click",   "like", "follow",    "comment",
                                                             "forward", "hate", "long_view", "profile_enter"};

}  // namespace

absl::StatusOr<uint32_t> ParseLabels(std::string_view text) {
  uint32_t labels = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('|'), text.size());
    const auto name = std::find(kNames.begin(), kNames.end(), text.substr(0, end));
    if (name == kNames.end()) {
      return absl::InvalidArgumentError(absl::StrCat("unknown label ", Quoted(text.substr(0, end)), "; known are ",
                                                     FormatLabels(kAllLabels), ", joined by '|'"));
    }
    labels |= 1u << (name - kNames.begin());
    text.remove_prefix(end);
    if (text == "|") return absl::InvalidArgumentError("labels end in '|'");
    if (!text.empty()) text.remove_prefix(1);
  }
  return labels;
}

std::string FormatLabels(uint32_t labels) {
  std::string text;
  for (int bit = 0; bit < kNumLabels; ++bit) {
    if ((labels >> bit & 1u) == 0) continue;
    if (!text.empty()) text += '|';
    text += kNames[bit];
  }
  return text;
}

}  // namespace beamline::data
