// SPDX-License-Identifier: Apache-2.0
#include "server/request_id.h"

#include <algorithm>
#include <cstdint>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"

namespace beamline::server {
namespace {

// Lower-case only, as the standard demands.
bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}
// 16 of them, not all zero.
std::string RandomHex() {
  thread_local absl::BitGen bits;
  return absl::StrCat(absl::Hex(absl::Uniform<uint64_t>(absl::IntervalClosed, bits, 1, UINT64_MAX), absl::kZeroPad16));
}

bool AllZero(absl::string_view text) { return text.find_first_not_of('0') == absl::string_view::npos; }

}  // namespace

std::string CleanRequestId(absl::string_view request_id) {
  std::string clean(request_id.substr(0, kMaxRequestIdBytes));
  for (char& c : clean) {
    if (c <= ' ' || c >= 0x7f || c == '"' || c == '\'' || c == '\\') c = '_';
  }
  return clean;
}

std::string MakeRequestId() { return RandomHex(); }

std::string TraceParent::ToString() const {
  return absl::StrCat("00-", trace_id, "-", span_id, sampled ? "-01" : "-00");
}

TraceParent ContinueTrace(const std::optional<TraceParent>& caller) {
  if (!caller.has_value()) return {RandomHex() + RandomHex(), RandomHex(), false};
  return {caller->trace_id, RandomHex(), caller->sampled};
}

std::optional<TraceParent> ParseTraceParent(absl::string_view header) {
  constexpr size_t kLength = 2 + 1 + 32 + 1 + 16 + 1 + 2;
  if (header.size() < kLength || header[2] != '-' || header[35] != '-' || header[52] != '-') return std::nullopt;
  const absl::string_view version = header.substr(0, 2), trace = header.substr(3, 32), span = header.substr(36, 16),
                          flags = header.substr(53, 2);
  // Version 00 ends here; a later one may go on behind a dash; ff is invalid for ever.
  if (!IsHex(version) || version == "ff") return std::nullopt;
  if (header.size() > kLength && (version == "00" || header[kLength] != '-')) return std::nullopt;
  if (!IsHex(trace) || !IsHex(span) || !IsHex(flags) || AllZero(trace) || AllZero(span)) return std::nullopt;
  const char last = flags[1];
  const int nibble = last <= '9' ? last - '0' : last - 'a' + 10;
  return TraceParent{std::string(trace), std::string(span), (nibble & 1) != 0};
}

}  // namespace beamline::server
