// SPDX-License-Identifier: Apache-2.0
//
// What is read from a call besides its message: the request id (cleaned, so that it can stand in a log line) and W3C
// trace context. Both come from strangers; nothing here fails, what is unusable is replaced or ignored. Pure functions,
// but for the random digits of MakeRequestId and ContinueTrace.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "beamline/limits.h"

namespace beamline::server {

// At most kMaxRequestIdBytes bytes; everything but printable ASCII without space and quotes becomes '_'.
std::string CleanRequestId(absl::string_view request_id);

// 16 random hexadecimal digits.
std::string MakeRequestId();

// https://www.w3.org/TR/trace-context/: "00-<32 hex>-<16 hex>-<2 hex>".
struct TraceParent {
  std::string trace_id;  // 32 lower-case hexadecimal digits, not all zero
  std::string span_id;   // 16, not all zero
  bool sampled = false;

  std::string ToString() const;  // of version 00
};
std::optional<TraceParent> ParseTraceParent(absl::string_view header);

// Our part of the caller's trace: its trace id and flag, a span id of our own. A trace of our own, not sampled, where
// the caller brought none that is valid.
TraceParent ContinueTrace(const std::optional<TraceParent>& caller);

}  // namespace beamline::server
