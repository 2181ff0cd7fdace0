// SPDX-License-Identifier: Apache-2.0
//
// A semantic ID in 16 bytes, 16 bits per level from the highest down, so that comparing keys as numbers is comparing
// SIDs in code order: what sorting and trie building work on. A plain value.
#pragma once

#include <compare>
#include <cstdint>

#include "beamline/types.h"

namespace beamline::catalogue {

struct SidKey {
  uint64_t high = 0;  // levels 0-3
  uint64_t low = 0;   // levels 4-7

  friend auto operator<=>(const SidKey&, const SidKey&) = default;  // NOLINT(modernize-use-nullptr): false positive

  uint16_t code(int level) const { return static_cast<uint16_t>((level < 4 ? high : low) >> (48 - 16 * (level & 3))); }
  void set_code(int level, uint16_t code) {
    (level < 4 ? high : low) |= static_cast<uint64_t>(code) << (48 - 16 * (level & 3));
  }

  // REQUIRES: every code is below kMaxLevelSize.
  static SidKey FromSid(const Sid& sid) {
    SidKey key;
    for (int level = 0; level < sid.levels(); ++level) key.set_code(level, static_cast<uint16_t>(sid[level]));
    return key;
  }
};
static_assert(kMaxLevels == 8 && kMaxLevelSize == 65536, "SidKey holds 8 levels of 16 bits");

}  // namespace beamline::catalogue
