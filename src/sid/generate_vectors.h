// SPDX-License-Identifier: Apache-2.0
//
// Made-up item vectors of any number: for measuring the tokenizer. `beamline generate-data vectors` is this function.
// As items have topics and styles, a vector is a topic's centre, a style's of that topic and noise. Deterministic in
// its options, on every machine.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "sid/item_vectors.h"

namespace beamline::sid {

struct VectorOptions {
  int64_t items = 1'000'000;
  int dim = 64;
  uint64_t seed = 1;
};

// Items have ids 1..items. INVALID_ARGUMENT names the option out of range.
absl::StatusOr<ItemVectors> GenerateVectors(const VectorOptions& options, Progress* progress = nullptr);

}  // namespace beamline::sid
