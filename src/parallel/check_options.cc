// SPDX-License-Identifier: Apache-2.0
#include "parallel/check_options.h"

#include "absl/strings/str_cat.h"
#include "base/check_range.h"
#include "beamline/status.h"

namespace beamline::parallel {

absl::Status CheckOptions(const ParallelOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(CheckRange("parallel.size", options.size, {1, kMaxRanks}));
  if (options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(absl::StrCat("parallel.rank: ", options.rank, " is outside 0..", options.size - 1,
                                                   ", the ranks of parallel.size ", options.size));
  }
  if (!options.enabled()) return absl::OkStatus();
  if (options.address.empty()) return absl::InvalidArgumentError("parallel.address: is empty; name rank 0's machine");
  BEAMLINE_RETURN_IF_ERROR(CheckRange("parallel.port", options.port, {1, 65535}));
  BEAMLINE_RETURN_IF_ERROR(
      CheckRange("parallel.start_timeout_ms", absl::ToInt64Milliseconds(options.start_timeout), {1, 3600000}));
  BEAMLINE_RETURN_IF_ERROR(
      CheckRange("parallel.stalled_after_ms", absl::ToInt64Milliseconds(options.stalled_after), {1000, 3600000}));
  return CheckRange("parallel.lost_after_ms", absl::ToInt64Milliseconds(options.lost_after),
                    {absl::ToInt64Milliseconds(kMinLostAfter), absl::ToInt64Milliseconds(kMaxLostAfter)});
}

}  // namespace beamline::parallel
