// SPDX-License-Identifier: Apache-2.0
//
// A remote caller's clock runs out a little before ours, and what arrives then is a cancel: to us he seems to have
// changed his mind, and whoever learns from deadlines that are missed hears of none. So a cancel in the last twentieth
// of a caller's time counts as its end. Where he gave none or more than is allowed, the server's limit stands for it.
#pragma once

#include "absl/time/time.h"

namespace beamline {

// Whether a cancel at `cancelled` means that the time from `begun` to `deadline` ran out. Never without a deadline.
inline bool RanOutOfTime(absl::Time begun, absl::Time deadline, absl::Time cancelled) {
  return deadline != absl::InfiniteFuture() && deadline - cancelled <= (deadline - begun) / 20;
}

}  // namespace beamline
