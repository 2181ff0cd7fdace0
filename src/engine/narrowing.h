// SPDX-License-Identifier: Apache-2.0
//
// Narrower beams in the place of refusals, by the ladder of EngineOptions::narrowing, as pure functions. Every request
// is looked at by itself when it enters the queue, so a request sees the load it meets and nothing has to be switched
// back afterwards; its step is fixed then, and its answer states it (RecommendResult::narrowing).
#pragma once

#include <functional>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "beamline/engine.h"

namespace beamline::engine {

// INVALID_ARGUMENT names the step, the limit and the value: waits ascend, widths descend.
absl::Status CheckNarrowing(absl::Span<const NarrowingStep> ladder, int max_beam_width);

// `widths` with at most the step's beams per level, but never fewer than `needed` (top_k: a SID may hold one item
// alone) where there were as many. Step 0: unchanged. REQUIRES: 0 <= step <= ladder.size().
std::vector<int> NarrowedWidths(std::vector<int> widths, absl::Span<const NarrowingStep> ladder, int step, int needed);

struct Narrowing {
  int step = 0;  // 0: as asked for
  std::vector<int> widths;
};

// What the scheduler would say to a request of such widths.
struct WidthForecast {
  bool accepted = true;
  absl::Duration wait;  // until a worker would begin with it
};

// The last step whose wait is reached, or the first behind it with which the request would still be accepted. Where
// none is, the narrowest: the scheduler refuses it. `ask` is called at least once, unless the ladder is empty.
Narrowing ChooseWidths(std::vector<int> widths, absl::Span<const NarrowingStep> ladder, int needed,
                       const std::function<WidthForecast(const std::vector<int>&)>& ask);

}  // namespace beamline::engine
