// SPDX-License-Identifier: Apache-2.0
//
// What each number among EngineOptions (engine.h) may be. The engine checks them for everybody, the server's
// configuration for its operators, whose names and units these are (proto/beamline/config/v1/server_config.proto).
#pragma once

#include <cstddef>
#include <cstdint>

namespace beamline {

struct OptionRange {
  const char* option;
  int64_t low, high;  // both allowed
};
inline constexpr OptionRange kEngineOptionRanges[] = {
    {"threads", 0, 1024},
    {"workers", 0, 64},
    {"default_beam_width", 1, 65536},
    {"max_beam_width", 1, 65536},
    {"max_top_k", 1, 100000},
    {"max_history", 1, 1000000},
    {"max_eligibility_items", 0, 1 << 20},
    {"max_rules", 1, 65536},
    {"max_batch_rows", 1, 1 << 20},
    {"max_batch_requests", 1, 4096},
    {"queue_capacity", 1, 1000000},
    {"max_queue_delay_us", 0, 10000000},
    {"context_cache_bytes", 0, int64_t{1} << 40},
    {"model_poll_ms", 10, 86400000},
    {"cost_measurement_ms", 0, 60000},
};

// `option` <= `other`.
struct OptionOrder {
  const char* option;
  const char* other;
};
inline constexpr OptionOrder kEngineOptionOrder[] = {
    {"default_beam_width", "max_beam_width"},
    {"max_beam_width", "max_batch_rows"},
    {"max_batch_requests", "max_batch_rows"},
};

// Of EngineOptions::narrowing; a step's width is also at most max_beam_width.
inline constexpr size_t kMaxNarrowingSteps = 8;
inline constexpr OptionRange kNarrowingWaitMs = {"narrowing.wait_ms", 0, 3600000};

// Of the default for requests that have none, and of the most that the server lets others have.
inline constexpr OptionRange kDeadlineRangeMs = {"default_deadline_ms", 1, 3600000};

}  // namespace beamline
