// SPDX-License-Identifier: Apache-2.0
//
// The values everything else is about: items, codes and semantic IDs. All are small values; copying is free of sharing.
#pragma once

#include <algorithm>
#include <array>
#include <compare>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"

namespace beamline {

// The caller's identifier of an item (video). Every value is valid, 0 included.
using ItemId = uint64_t;

// One code of a semantic ID: an index into its level's codebook.
using Code = uint32_t;

// Levels a semantic ID may have. Sizes of levels are data, never constants.
inline constexpr int kMaxLevels = 8;

// Codes a level may have: 16 bits hold every code.
inline constexpr uint32_t kMaxLevelSize = 65536;

// A semantic ID: one code per level, ordered lexicographically. Level counts are 1..kMaxLevels.
class Sid {
 public:
  Sid() = default;
  Sid(std::initializer_list<Code> codes) : Sid(absl::MakeConstSpan(codes.begin(), codes.size())) {}
  // REQUIRES: codes.size() <= kMaxLevels; the surplus is dropped.
  explicit Sid(absl::Span<const Code> codes) {
    for (Code code : codes) push_back(code);
  }

  int levels() const { return levels_; }
  bool empty() const { return levels_ == 0; }
  // REQUIRES: 0 <= level < levels().
  Code operator[](int level) const { return codes_[static_cast<size_t>(level)]; }
  absl::Span<const Code> codes() const { return absl::MakeConstSpan(codes_.data(), levels_); }
  void push_back(Code code) {
    if (levels_ < kMaxLevels) codes_[levels_++] = code;
  }

  // Unused codes are 0, so comparing arrays compares prefixes first and then lengths.
  friend auto operator<=>(const Sid&, const Sid&) = default;
  friend bool operator==(const Sid&, const Sid&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const Sid& sid) {
    return H::combine(std::move(h), sid.codes_, sid.levels_);
  }

  // "<12,7,255>"
  std::string ToString() const {
    std::string text = "<";
    for (int level = 0; level < levels_; ++level) absl::StrAppend(&text, level ? "," : "", (*this)[level]);
    return absl::StrCat(text, ">");
  }

 private:
  std::array<Code, kMaxLevels> codes_{};
  uint8_t levels_ = 0;
};

}  // namespace beamline
