// SPDX-License-Identifier: Apache-2.0
#include "loadgen/capacity.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "beamline/status.h"

namespace beamline::loadgen {

absl::StatusOr<double> FindCapacity(const CapacityOptions& options,
                                    const std::function<absl::StatusOr<bool>(double rate)>& carries) {
  double good = 0, bad = 0;  // 0: not known yet
  for (int trial = 0; trial < options.max_trials; ++trial) {
    if (good > 0 && bad > 0 && bad * (1 - options.precision) <= good) {
      BEAMLINE_ASSIGN_OR_RETURN(const bool confirmed, carries(good));
      if (confirmed) return good;
      bad = good;
      good *= 1 - options.precision;  // tried by the next confirmation
      continue;
    }
    const double rate = good == 0 && bad == 0 ? options.start
                        : bad == 0            ? 2 * good
                        : good == 0           ? bad / 2
                                              : std::sqrt(good * bad);
    BEAMLINE_ASSIGN_OR_RETURN(const bool carried, carries(rate));
    (carried ? good : bad) = rate;
  }
  return absl::FailedPreconditionError(absl::StrFormat(
      "no rate was found that is carried: %d trials from %.3g/s ended between %.3g/s and %.3g/s; the deadline may be "
      "shorter than a single answer takes, or the machine is not quiet",
      options.max_trials, options.start, good, bad));
}

}  // namespace beamline::loadgen
