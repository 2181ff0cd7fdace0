// SPDX-License-Identifier: Apache-2.0
#include "parallel/check_options.h"

#include <cstdint>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "beamline/status.h"

namespace beamline::parallel {
namespace {

absl::Status CheckRange(absl::string_view field, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("parallel.", field, ": ", value, " is outside ", low, "..", high));
}

}  // namespace

absl::Status CheckOptions(const ParallelOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(CheckRange("size", options.size, 1, kMaxRanks));
  if (options.rank < 0 || options.rank >= options.size) {
    return absl::InvalidArgumentError(absl::StrCat("parallel.rank: ", options.rank, " is outside 0..", options.size - 1,
                                                   ", the ranks of parallel.size ", options.size));
  }
  if (!options.enabled()) return absl::OkStatus();
  if (options.address.empty()) return absl::InvalidArgumentError("parallel.address: is empty; name rank 0's machine");
  BEAMLINE_RETURN_IF_ERROR(CheckRange("port", options.port, 1, 65535));
  BEAMLINE_RETURN_IF_ERROR(
      CheckRange("start_timeout_ms", absl::ToInt64Milliseconds(options.start_timeout), 1, 3600000));
  BEAMLINE_RETURN_IF_ERROR(
      CheckRange("stalled_after_ms", absl::ToInt64Milliseconds(options.stalled_after), 1000, 3600000));
  return CheckRange("lost_after_ms", absl::ToInt64Milliseconds(options.lost_after),
                    absl::ToInt64Milliseconds(kMinLostAfter), absl::ToInt64Milliseconds(kMaxLostAfter));
}

}  // namespace beamline::parallel
