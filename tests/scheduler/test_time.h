// SPDX-License-Identifier: Apache-2.0
//
// The clock of the scheduler's tests.
#pragma once

#include "absl/time/time.h"

namespace beamline::scheduler {

inline constexpr absl::Duration kMs = absl::Milliseconds(1);
inline const absl::Time kNow = absl::FromUnixSeconds(1000);

}  // namespace beamline::scheduler
