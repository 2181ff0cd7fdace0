// SPDX-License-Identifier: Apache-2.0
//
// What a refusal under load says beside its text, as payloads of its status: when it may be worth trying again, which
// the server passes on as retry_after_ms of beamline.v1.ErrorDetail (clients that retry sooner only add to the
// overload), and why, for machines, which it passes on as `reason` and counts by.
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
inline constexpr absl::string_view kRefusalPayload = "beamline/refusal";

// Reasons of refusals.
inline constexpr absl::string_view kCannotFinish = "CANNOT_FINISH";  // the deadline would pass before the answer
inline constexpr absl::string_view kQueueFull = "QUEUE_FULL";
inline constexpr absl::string_view kPushedOut = "PUSHED_OUT";  // of a full queue, by a request of higher priority

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

// RESOURCE_EXHAUSTED.
inline absl::Status Refusal(absl::string_view reason, absl::string_view message, absl::Duration retry_after) {
  absl::Status status = absl::ResourceExhaustedError(message);
  SetRetryAfter(status, retry_after);
  status.SetPayload(kRefusalPayload, absl::Cord(reason));
  return status;
}

// Empty: `status` is no such refusal.
inline std::string GetRefusalReason(const absl::Status& status) {
  const auto payload = status.GetPayload(kRefusalPayload);
  return payload.has_value() ? std::string(*payload) : "";
}

}  // namespace beamline
