// SPDX-License-Identifier: Apache-2.0
#include "engine/narrowing.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/engine_limits.h"
#include "beamline/status.h"

namespace beamline::engine {
namespace {

absl::Status StepError(size_t index, absl::string_view field, int64_t value, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("narrowing[", index, "].", field, ": ", value, " ", what));
}

}  // namespace

absl::Status CheckNarrowing(absl::Span<const NarrowingStep> ladder, int max_beam_width) {
  if (ladder.size() > kMaxNarrowingSteps) {
    return absl::InvalidArgumentError(
        absl::StrCat("narrowing: has ", ladder.size(), " steps, at most ", kMaxNarrowingSteps));
  }
  for (size_t i = 0; i < ladder.size(); ++i) {
    const int64_t wait_ms = absl::ToInt64Milliseconds(ladder[i].wait);
    if (wait_ms < kNarrowingWaitMs.low || wait_ms > kNarrowingWaitMs.high) {
      return StepError(i, "wait_ms", wait_ms,
                       absl::StrCat("is outside ", kNarrowingWaitMs.low, "..", kNarrowingWaitMs.high));
    }
    if (ladder[i].beam_width < 1 || ladder[i].beam_width > max_beam_width) {
      return StepError(i, "beam_width", ladder[i].beam_width,
                       absl::StrCat("is outside 1..", max_beam_width, " (max_beam_width)"));
    }
    if (i == 0) continue;
    if (ladder[i].wait <= ladder[i - 1].wait) {
      return StepError(i, "wait_ms", wait_ms,
                       absl::StrCat("is not above that of the step before it (",
                                    absl::ToInt64Milliseconds(ladder[i - 1].wait), "); waits must ascend"));
    }
    if (ladder[i].beam_width >= ladder[i - 1].beam_width) {
      return StepError(i, "beam_width", ladder[i].beam_width,
                       absl::StrCat("is not below that of the step before it (", ladder[i - 1].beam_width,
                                    "); widths must descend"));
    }
  }
  return absl::OkStatus();
}

std::vector<int> NarrowedWidths(std::vector<int> widths, absl::Span<const NarrowingStep> ladder, int step, int needed) {
  if (step == 0) return widths;
  const int most = std::max(ladder[step - 1].beam_width, needed);
  for (int& width : widths) width = std::min(width, most);
  return widths;
}

Narrowing ChooseWidths(std::vector<int> widths, absl::Span<const NarrowingStep> ladder, int needed,
                       const std::function<WidthForecast(const std::vector<int>&)>& ask) {
  Narrowing chosen{.widths = widths};
  if (ladder.empty()) return chosen;
  const int last = static_cast<int>(ladder.size());
  WidthForecast forecast = ask(widths);
  while (chosen.step < last && forecast.wait >= ladder[chosen.step].wait) ++chosen.step;
  for (;; ++chosen.step) {
    chosen.widths = NarrowedWidths(widths, ladder, chosen.step, needed);
    if (chosen.step > 0) forecast = ask(chosen.widths);
    if (forecast.accepted || chosen.step == last) break;
  }
  if (chosen.widths == widths) chosen.step = 0;  // it asked for no more
  return chosen;
}

}  // namespace beamline::engine
