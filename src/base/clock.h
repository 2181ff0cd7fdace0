// SPDX-License-Identifier: Apache-2.0
//
// The time, injected. Whatever compares deadlines or measures a stage takes a `const Clock*` from its owner, so that
// policies and schedulers run under FakeClock through hours in milliseconds. Times are absl::Time and comparable with
// deadlines that come from outside. All clocks are thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace beamline {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() const = 0;
};

// The wall time of its construction, moved on by the steady clock: a step of the system's clock neither expires a queue
// nor makes a duration negative.
class RealClock final : public Clock {
 public:
  absl::Time Now() const override {
    return wall_start_ + absl::FromChrono(std::chrono::steady_clock::now() - steady_start_);
  }

 private:
  absl::Time wall_start_ = absl::Now();
  std::chrono::steady_clock::time_point steady_start_ = std::chrono::steady_clock::now();
};

// The process's own: whoever compares times with somebody else's takes this one, because two that were made before and
// after a step of the system's clock differ by it for ever.
inline const RealClock& ProcessClock() {
  static const RealClock clock;
  return clock;
}

// A time of this process's clock as somebody outside reads it: with the steps that the system's clock has made since,
// to the second. For what is shown, never for what is compared.
inline absl::Time OnTheWall(absl::Time time) {
  return time + absl::Trunc(absl::Now() - ProcessClock().Now(), absl::Seconds(1));
}

// Stands still until told to move.
class FakeClock final : public Clock {
 public:
  explicit FakeClock(absl::Time now = absl::FromUnixSeconds(1'000'000)) : nanos_(CeilNanos(now)) {}

  absl::Time Now() const override { return absl::FromUnixNanos(nanos_.load(std::memory_order_acquire)); }
  void Advance(absl::Duration by) { nanos_.fetch_add(absl::ToInt64Nanoseconds(by), std::memory_order_acq_rel); }
  // Moves to `time`, forward or backward: to the first whole nanosecond that is not before it.
  void Set(absl::Time time) { nanos_.store(CeilNanos(time), std::memory_order_release); }

 private:
  static int64_t CeilNanos(absl::Time time) {
    const int64_t nanos = absl::ToUnixNanos(time);
    return nanos + (absl::FromUnixNanos(nanos) < time ? 1 : 0);
  }

  std::atomic<int64_t> nanos_;  // acquire/release: who sees a time also sees what was written before it was set
};

}  // namespace beamline
