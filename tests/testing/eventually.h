// SPDX-License-Identifier: Apache-2.0
//
// How tests wait for what another thread or process does: as long as a busy machine with a sanitizer may take. What
// never comes is then a failure where it was awaited, and no test that hangs.
#pragma once

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace beamline::testing {

inline constexpr absl::Duration kPatience = absl::Minutes(2);

// True once `condition` holds; false where it does not within kPatience.
template <class Condition>
[[nodiscard]] bool Eventually(const Condition& condition) {
  for (const absl::Time end = absl::Now() + kPatience; !condition(); absl::SleepFor(absl::Milliseconds(1))) {
    if (absl::Now() >= end) return false;
  }
  return true;
}

}  // namespace beamline::testing
