// SPDX-License-Identifier: Apache-2.0
//
// Puts load on a target for a while and keeps one sample per call.
//
// Open loop: calls are due at the times of a schedule fixed beforehand (Poisson or evenly spaced), whether or not
// earlier ones were answered, and every latency counts from when the call was due. A target that stalls is therefore
// charged for every call that came due meanwhile (no coordinated omission). Closed loop: so many calls are always in
// flight, the next one leaves when one returns (a moment later where the target was UNAVAILABLE); its latency says
// nothing of how a target behaves under a given rate.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/progress.h"
#include "loadgen/target.h"

namespace beamline::loadgen {

enum class Arrivals { kPoisson, kConstant };

struct LoadOptions {
  std::optional<double> rate;  // calls a second: open loop; nullopt: closed loop
  Arrivals arrivals = Arrivals::kPoisson;
  int concurrency = 1;  // of a closed loop
  int batch = 1;        // requests per call
  absl::Duration warm_up = absl::Seconds(2);
  absl::Duration duration = absl::Seconds(10);  // measured, after the warm-up
  absl::Duration deadline = absl::Seconds(1);   // of each call, from when it is due
  uint64_t seed = 1;
  int64_t max_requests = 10'000'000;  // kept, some gigabytes; RESOURCE_EXHAUSTED where it were more
};

// One request of one call. Times from the begin of the run.
struct Sample {
  absl::Duration due;       // when it should be sent: what the schedule says, or, in a closed loop, when it was
  absl::Duration sent;      // when it was
  absl::Duration answered;  // when its call was
  int64_t call = 0;         // its number, from 0
  int request = 0;          // of the pool
  Answer answer;            // without items
};

struct RunResult {
  std::vector<Sample> samples;             // in order of `due`, the warm-up's too
  absl::Duration begin, end;               // what is measured: `due` in [begin, end)
  std::optional<absl::Duration> cpu_time;  // of the target's process between begin and the last answer
};

// Offsets of the calls from the begin, ascending, all before `length`. Pure.
std::vector<absl::Duration> Schedule(double rate, Arrivals arrivals, absl::Duration length, uint64_t seed);

// Waits for all answers, that is at most for `deadline`. CANCELLED when the program is interrupted (base/interrupt.h):
// then too the calls in flight are waited for. REQUIRES: `pool` requests were given to the target's Prepare, pool >= 1.
absl::StatusOr<RunResult> RunLoad(Target& target, int pool, const LoadOptions& options, Progress* progress);

}  // namespace beamline::loadgen
