// SPDX-License-Identifier: Apache-2.0
//
// What load is put on: an engine in this process (engine_target.h) or a running server (cli/bench_target.h). A target
// holds the pool of requests, so that a call is a list of indices and what can be prepared is prepared before the clock
// runs.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "beamline/request.h"

namespace beamline::loadgen {

// Of one request of a call.
struct Answer {
  absl::Status status;
  absl::Duration retry_after;  // of a refusal; zero: it does not say
  StageTimings timings;        // the engine's own; of an OK answer, as what follows
  bool context_cached = false;
  int narrowing = 0;
  int beams = 0;              // widest level
  std::vector<ItemId> items;  // only where Send was asked for them
};

class Target {
 public:
  using Done = absl::AnyInvocable<void(std::vector<Answer>)>;  // one answer per request, in order

  virtual ~Target() = default;

  // Takes the requests that calls then choose from; at most `open_calls` calls will be open at once. Not while calls
  // are in flight. One with neither events nor a user is a new user's each time it is sent (workload.h, NewUser).
  virtual absl::Status Prepare(std::vector<RecommendRequest> pool, int64_t open_calls) = 0;
  // The clock of deadlines, the target's own: two that were made before and after a step of the system's clock differ
  // by it for ever. Thread-safe.
  virtual absl::Time Now() const { return absl::Now(); }
  // Sends the requests `indices` of the pool as one call and does not wait. `done` runs once, from any thread or inside
  // Send. REQUIRES: indices of the pool, at least one. Thread-safe.
  virtual void Send(absl::Span<const int> indices, absl::Time deadline, bool want_items, Done done) = 0;
  // CPU time the target's process has used so far; nullopt where that cannot be told apart from the load's own.
  virtual std::optional<absl::Duration> CpuTime() const { return std::nullopt; }
  virtual int64_t connections() const { return 0; }  // that calls go over
};

}  // namespace beamline::loadgen
