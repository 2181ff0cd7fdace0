// SPDX-License-Identifier: Apache-2.0
//
// Waiting for a condition or an injected clock's time, whichever comes first.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <mutex>

#include "absl/time/time.h"
#include "base/clock.h"

namespace beamline {

// Returns when `changed` is notified, at `when`, or for no reason: callers look again in a loop. After an hour at most,
// for condition variables overflow on absurd times.
inline void WaitUntil(std::condition_variable& changed, std::unique_lock<std::mutex>& lock, const Clock& clock,
                      absl::Time when) {
  if (when == absl::InfiniteFuture()) {
    changed.wait(lock);
    return;
  }
  const absl::Duration left = std::clamp(when - clock.Now(), absl::ZeroDuration(), absl::Hours(1));
  changed.wait_for(lock, absl::ToChronoNanoseconds(left));
}

}  // namespace beamline
