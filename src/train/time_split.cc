// SPDX-License-Identifier: Apache-2.0
#include "train/time_split.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "base/utf8.h"
#include "beamline/status.h"

namespace beamline::train {
namespace {

constexpr size_t kMaxShownBytes = 100;
// Formats hold four digits of a year, and what is written must be read again.
constexpr absl::string_view kFirstDay = "0001-01-01", kLastDay = "9999-12-31";

std::optional<int64_t> ParseDay(absl::string_view text) {
  absl::Time time;
  if (!absl::ParseTime("%Y-%m-%d", text, absl::UTCTimeZone(), &time, nullptr)) return std::nullopt;
  return absl::ToUnixMillis(time);
}

absl::StatusOr<int64_t> ParseMoment(absl::string_view text) {
  int64_t ms = 0;
  absl::Time time;
  std::optional<int64_t> moment;
  if (absl::SimpleAtoi(text, &ms)) {
    moment = ms;
  } else if (absl::ParseTime(absl::RFC3339_full, text, &time, nullptr)) {
    moment = absl::ToUnixMillis(time);
  } else {
    moment = ParseDay(text);
  }
  if (moment && *ParseDay(kFirstDay) <= *moment && *moment <= *ParseDay(kLastDay)) return *moment;
  return absl::InvalidArgumentError(absl::StrCat("'", PrintableUtf8(text, kMaxShownBytes),
                                                 "' is no day (2022-05-01), no time (2022-05-01T18:00:00Z) and no Unix "
                                                 "time in milliseconds, from ",
                                                 kFirstDay, " to ", kLastDay));
}

}  // namespace

absl::StatusOr<TimeSplit> ParseTimeSplit(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ',');
  if (parts.size() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", parts.size(), parts.size() == 1 ? " moment" : " moments",
                     "; give two: where validation begins, and where the test does, as 2022-05-01,2022-05-04"));
  }
  TimeSplit split;
  BEAMLINE_ASSIGN_OR_RETURN(split.validation_from_ms, ParseMoment(parts[0]));
  BEAMLINE_ASSIGN_OR_RETURN(split.test_from_ms, ParseMoment(parts[1]));
  if (split.validation_from_ms < split.test_from_ms) return split;
  return absl::InvalidArgumentError(absl::StrCat(DescribeTimeSplit(split), ": the second must be later"));
}

std::string DescribeMoment(int64_t unix_ms) {
  return absl::FormatTime("%Y-%m-%d%ET%H:%M:%E*SZ", absl::FromUnixMillis(unix_ms), absl::UTCTimeZone());
}

std::string DescribeTimeSplit(const TimeSplit& split) {
  return absl::StrCat(DescribeMoment(split.validation_from_ms), ",", DescribeMoment(split.test_from_ms));
}

}  // namespace beamline::train
