// SPDX-License-Identifier: Apache-2.0
//
// When a refused request may be worth trying again: a payload on a RESOURCE_EXHAUSTED or UNAVAILABLE status, which the
// server passes on as retry_after_ms of beamline.v1.ErrorDetail. Clients that retry sooner only add to the overload.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace beamline {

inline constexpr absl::string_view kRetryAfterPayload = "beamline/retry-after-ms";

// Rounds up to at least one millisecond.
inline void SetRetryAfter(absl::Status& status, absl::Duration delay) {
  const int64_t ms = std::max<int64_t>(1, absl::ToInt64Milliseconds(absl::Ceil(delay, absl::Milliseconds(1))));
  status.SetPayload(kRetryAfterPayload, absl::Cord(absl::StrCat(ms)));
}

inline std::optional<absl::Duration> GetRetryAfter(const absl::Status& status) {
  const auto payload = status.GetPayload(kRetryAfterPayload);
  int64_t ms = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &ms)) return std::nullopt;
  return absl::Milliseconds(ms);
}

}  // namespace beamline
