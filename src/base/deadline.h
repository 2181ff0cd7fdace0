// SPDX-License-Identifier: Apache-2.0
//
// A remote caller's clock runs out a little before ours, and what arrives then is a cancel: to us he seems to have
// changed his mind, and whoever learns from deadlines that are missed hears of none. So a cancel in the last twentieth
// of a caller's time counts as its end, and at least in the last 5 ms, of what is shorter than 10 ms in the second
// half: so much later do slow callers arrive. Where he gave none or more than is allowed, the server's limit stands for
// it.
#pragma once

#include <algorithm>

#include "absl/time/time.h"

namespace beamline {

// Whether a cancel at `cancelled` means that the time from `begun` to `deadline` ran out. Never without a deadline.
inline bool RanOutOfTime(absl::Time begun, absl::Time deadline, absl::Time cancelled) {
  const absl::Duration whole = deadline - begun;
  const absl::Duration end = std::max(whole / 20, std::min(absl::Milliseconds(5), whole / 2));
  return deadline != absl::InfiniteFuture() && deadline - cancelled <= end;
}

}  // namespace beamline
