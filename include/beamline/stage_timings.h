// SPDX-License-Identifier: Apache-2.0
//
// Where the time of a request that failed had gone by then: a payload on its status, for whoever records what happened.
// An answer carries its StageTimings itself.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "beamline/request.h"

namespace beamline {

inline constexpr absl::string_view kStageTimingsPayload = "beamline/stage-timings-us";

// Its prepare, queue, encode and decode. REQUIRES: !status.ok().
inline void SetStageTimings(absl::Status& status, const StageTimings& timings) {
  const auto us = [](absl::Duration duration) { return absl::ToInt64Microseconds(duration); };
  status.SetPayload(kStageTimingsPayload, absl::Cord(absl::StrCat(us(timings.prepare), " ", us(timings.queue), " ",
                                                                  us(timings.encode), " ", us(timings.decode))));
}

inline std::optional<StageTimings> GetStageTimings(const absl::Status& status) {
  const auto payload = status.GetPayload(kStageTimingsPayload);
  if (!payload.has_value()) return std::nullopt;
  const std::string text(*payload);
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  std::array<int64_t, 4> us{};
  if (parts.size() != us.size()) return std::nullopt;
  for (size_t i = 0; i < us.size(); ++i) {
    if (!absl::SimpleAtoi(parts[i], &us[i])) return std::nullopt;
  }
  StageTimings timings;
  timings.prepare = absl::Microseconds(us[0]);
  timings.queue = absl::Microseconds(us[1]);
  timings.encode = absl::Microseconds(us[2]);
  timings.decode = absl::Microseconds(us[3]);
  return timings;
}

}  // namespace beamline
