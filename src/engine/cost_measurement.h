// SPDX-License-Identifier: Apache-2.0
//
// What batches of a model cost, measured before it serves: synthetic requests of the longest history, one of the
// default beam width and one of the widest, then two, four, ... of the default at once and the largest batch of the
// widest, as far as the budget goes, through the runner's own Encode and Decode. The scheduler takes it for its
// baseline (scheduler/cost_table.h), so that admission knows the first burst as well as the thousandth. Before all
// that, and outside of the budget, a model on a device with memory of its own runs the largest batch there can be: one
// that does not fit there is refused now.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "beamline/request.h"
#include "runtime/runner.h"
#include "scheduler/cost_table.h"

namespace beamline::engine {

struct CostMeasurement {
  int beam_width = 32;
  int max_beam_width = 0;     // measured, too, alone and in the largest batch: how cost grows to it is no proportion
  int64_t max_requests = 64;  // of the largest batch
  int64_t max_rows = 2048;
  ScoreRule score_rule = ScoreRule::kFull;
  absl::Duration budget = absl::Milliseconds(500);  // begins no further batch after it; zero: measures no cost
};

// The least of the runs of each size and of all larger ones, as other work on the machine only adds; there is one more
// of them than a batch takes to be warm. A size that the budget leaves cold is left out where that takes more than one
// run. A batch that fails is an error: requests would meet it, too; RESOURCE_EXHAUSTED where memory ran out. Called by
// the thread that warms the model up.
absl::StatusOr<std::vector<scheduler::BatchCost>> MeasureCosts(runtime::Runner& runner,
                                                               const CostMeasurement& measurement, const Clock& clock);

}  // namespace beamline::engine
