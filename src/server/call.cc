// SPDX-License-Identifier: Apache-2.0
#include "server/call.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "beamline/status.h"
#include "grpc/support/time.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

// HTTP/2 counts 32 bytes of overhead per header (RFC 9113, 6.5.2).
absl::Status CheckMetadata(const grpc::ServerContextBase& context, int64_t limit) {
  int64_t bytes = 0;
  for (const auto& [key, value] : context.client_metadata()) bytes += key.size() + value.size() + 32;
  if (bytes <= limit) return absl::OkStatus();
  return WithProblem(absl::ResourceExhaustedError(
                         absl::StrCat("metadata: ", bytes, " bytes of headers, more than the limit of ", limit)),
                     {.reason = kMetadataTooLarge, .limit = absl::StrCat(limit), .actual = absl::StrCat(bytes)});
}

// Until the client's deadline, where there is one. Not ServerContext::deadline(): that is a time of the system's clock,
// which may have been set since ours began, and its nanoseconds overflow after 292 years.
std::optional<absl::Duration> TimeLeft(const grpc::ServerContextBase& context) {
  const gpr_timespec deadline = context.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) == 0) return std::nullopt;
  const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
  return absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
}

}  // namespace

RequestLimits LimitsNow(const ServiceContext& service) {
  RequestLimits limits = service.request_limits;
  limits.levels = service.engine->catalogue()->levels();
  return limits;
}

absl::Time ClampDeadline(absl::Time now, std::optional<absl::Time> client, const CallLimits& limits) {
  return std::min(client.value_or(now + limits.default_deadline), now + limits.max_deadline);
}

absl::Time BatchDeadline(absl::Time now, absl::Time deadline) {
  const absl::Duration left = deadline - now;
  return deadline - std::min(left / 2, std::max(left / 50, absl::Milliseconds(2)));
}

TraceParent TraceOf(const grpc::ServerContextBase& context) {
  const auto [first, last] = context.client_metadata().equal_range("traceparent");
  // More than one of them is none: nobody can say which is meant.
  if (first == last || std::next(first) != last) return ContinueTrace(std::nullopt);
  return ContinueTrace(ParseTraceParent(absl::string_view(first->second.data(), first->second.size())));
}

absl::StatusOr<CallContext> ReadCallContext(const grpc::ServerContextBase& context, const ServiceContext& service,
                                            TraceParent trace) {
  if (service.stopping.load()) {
    return WithReason(absl::UnavailableError("the server is stopping; try another one"), kStopping);
  }
  BEAMLINE_RETURN_IF_ERROR(CheckMetadata(context, service.limits.max_metadata_bytes));
  const absl::Time now = service.clock->Now();
  const std::optional<absl::Duration> left = TimeLeft(context);
  const absl::Time deadline =
      ClampDeadline(now, left ? std::optional<absl::Time>(now + *left) : std::nullopt, service.limits);
  if (deadline <= now) return absl::DeadlineExceededError("the deadline passed before the call began");
  return CallContext{deadline, std::move(trace)};
}

}  // namespace beamline::server
