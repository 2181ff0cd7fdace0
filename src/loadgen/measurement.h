// SPDX-License-Identifier: Apache-2.0
//
// From the samples of a run to what is reported of it. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "loadgen/run.h"
#include "loadgen/statistics.h"

namespace beamline::loadgen {

// One combination of what is swept.
struct Cell {
  LoadOptions load;
  int beam = 0;  // 0: the target's default
  int history = 0;
};

// Milliseconds, but for counts and rates.
struct Measurement {
  Cell cell;
  int64_t requests = 0;                    // due while measured, as all that follows but for throughput and goodput
  int64_t answered = 0;                    // OK
  int64_t late = 0;                        // of them after the deadline: answered, but no goodput
  int64_t refused = 0;                     // RESOURCE_EXHAUSTED
  int64_t unhinted = 0;                    // of them without a hint when to try again
  int64_t expired = 0;                     // DEADLINE_EXCEEDED
  int64_t failed = 0;                      // anything else
  std::string failure;                     // the first of them
  double throughput = 0;                   // requests whose answers came while measured, a second
  double goodput = 0;                      // of them within the deadline
  Summary latency;                         // of calls with an answer, from when they were due
  Summary refusal;                         // of calls with a refusal, from when they were sent
  Summary lag;                             // how much later than due calls were sent: the load generator's own fault
  Summary queue, encode, decode, resolve;  // the target's stages; encode without cached contexts
  Summary overhead;                        // latency less encode and decode: queues, checks, items, transport
  int64_t cached = 0;                      // answered with a cached context
  std::map<int, int64_t> beams;            // widest level -> answers
  std::map<int, int64_t> narrowing;        // step (0: none) -> answers
  // Of the target's process per answered request, where it is known, with what it spent on others; and less the
  // answers' shares of the time of their batches' encode and decode. Where everything is answered, and one thread
  // computes alone on its core, the latter is the server's own.
  std::optional<double> cpu, cpu_overhead;

  bool open_loop() const { return cell.load.rate.has_value(); }
};

Measurement Measure(const Cell& cell, const RunResult& run);

// Requests of one priority alone. `priorities`: of the pool.
Measurement MeasureClass(const Cell& cell, const RunResult& run, const std::vector<Priority>& priorities,
                         Priority wanted);

}  // namespace beamline::loadgen
