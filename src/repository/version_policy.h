// SPDX-License-Identifier: Apache-2.0
//
// Which version of a watched folder to load next, as a pure function: the newest version that was not refused, above
// the floor. The floor is the newest version that was served from the folder, or, once an operator has reloaded or
// rolled back by hand, the newest there was then, which may be lower: a hand's choice holds until somebody publishes
// something newer. A version that disappears from the folder changes nothing; what is served stays served.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "repository/version_folder.h"

namespace beamline::repository {

// Why a version is passed over. It is tried again when its files change, or at `retry_at`.
struct Refusal {
  std::string stamp;
  absl::Time retry_at = absl::InfiniteFuture();
  int tries = 1;  // of these files
};
using Refusals = std::map<int64_t, Refusal>;  // by number

// When to try again what failed with `error`: never where the bundle is at fault, after `delay` where the machine is
// (memory, input and output, rights, what is not there: their change leaves no trace in a stamp), or where the error is
// marked so (base/may_pass.h): then after twice as long each time, for it may as well be the bundle's fault for good.
absl::Time RetryAt(const absl::Status& error, absl::Time now, absl::Duration delay, int tries = 1);

// Null: nothing to do. `available` is ascending.
const FolderVersion* NextVersion(absl::Span<const FolderVersion> available, int64_t floor, const Refusals& refusals,
                                 absl::Time now);

}  // namespace beamline::repository
