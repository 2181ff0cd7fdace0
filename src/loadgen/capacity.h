// SPDX-License-Identifier: Apache-2.0
//
// The largest rate a target carries, by bisection on the logarithm of the rate.
#pragma once

#include <functional>

#include "absl/status/statusor.h"

namespace beamline::loadgen {

struct CapacityOptions {
  double start = 10;        // the first rate tried
  double precision = 0.05;  // the answer is at most this share below a rate that was not carried
  int max_trials = 30;
};

// `carries` tries a rate. Doubles or halves from `start` to a rate that is carried and one that is not, bisects between
// them, and tries what comes out once more; where that fails, goes down by the precision until a rate is carried again.
// So what is returned was carried in the last trial. FAILED_PRECONDITION: after `max_trials` there is no such rate.
// REQUIRES: start > 0, 0 < precision < 1.
absl::StatusOr<double> FindCapacity(const CapacityOptions& options,
                                    const std::function<absl::StatusOr<bool>(double rate)>& carries);

}  // namespace beamline::loadgen
