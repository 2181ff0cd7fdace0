// SPDX-License-Identifier: Apache-2.0
//
// What is held out of a log to measure on, and one measurement of it. How logs are split: train/corpus.h. Plain values.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace beamline::data {

enum class HeldOut { kValidation, kTest };

struct EvaluationCase {
  uint32_t user = 0;
  uint32_t target = 0;
  absl::Span<const uint32_t> history;  // oldest first; a view into the sequences
};

}  // namespace beamline::data
