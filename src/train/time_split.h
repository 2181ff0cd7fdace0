// SPDX-License-Identifier: Apache-2.0
//
// A split of a log at two moments, the same for all users: what happens before the first is trained on, as a system
// that goes live then would know it; a user's first target from there on is his validation target, the first from the
// second moment on his test target. Harder than leave-one-out, and nearer to serving: no model and no baseline knows
// what others do later. (A k-core, if one is asked for, is that of the whole log, as with leave-one-out.) Pure
// functions.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace beamline::train {

struct TimeSplit {
  int64_t validation_from_ms = 0;  // Unix time
  int64_t test_from_ms = 0;        // later

  friend bool operator==(const TimeSplit&, const TimeSplit&) = default;
};

// Two moments with a comma between them, each a day (midnight UTC), an RFC 3339 time, or Unix time in milliseconds:
// "2022-05-01,2022-05-04". INVALID_ARGUMENT says which part is what else, or that they do not ascend.
absl::StatusOr<TimeSplit> ParseTimeSplit(absl::string_view text);

// One moment as ParseTimeSplit reads it: "2022-05-01T00:00:00Z".
std::string DescribeMoment(int64_t unix_ms);
// Both.
std::string DescribeTimeSplit(const TimeSplit& split);

}  // namespace beamline::train
