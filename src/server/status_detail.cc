// SPDX-License-Identifier: Apache-2.0
#include "server/status_detail.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "beamline/retry.h"

namespace beamline::server {
namespace {

absl::string_view ReasonOfCode(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return kFieldInvalid;
    case absl::StatusCode::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case absl::StatusCode::kCancelled:
      return "CANCELLED";
    case absl::StatusCode::kNotFound:
      return "NOT_FOUND";
    case absl::StatusCode::kResourceExhausted:
      return "OVERLOADED";
    case absl::StatusCode::kUnavailable:
      return "UNAVAILABLE";
    case absl::StatusCode::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case absl::StatusCode::kDataLoss:
      return "DATA_LOSS";
    case absl::StatusCode::kPermissionDenied:
      return "PERMISSION_DENIED";
    case absl::StatusCode::kAborted:
      return "ABORTED";
    default:
      return "INTERNAL";
  }
}

absl::Status Attach(absl::Status status, const v1::ErrorDetail& detail) {
  status.SetPayload(kErrorDetailUrl, absl::Cord(detail.SerializeAsString()));
  return status;
}

}  // namespace

absl::Status InvalidField(const FieldProblem& problem) {
  const std::string text =
      problem.text.empty() ? absl::StrCat(problem.actual, " is outside ", problem.limit) : problem.text;
  return WithProblem(absl::InvalidArgumentError(absl::StrCat(problem.field, problem.field.empty() ? "" : ": ", text)),
                     problem);
}

absl::Status WithProblem(absl::Status status, const FieldProblem& problem) {
  v1::ErrorDetail detail = DetailOf(status);
  detail.set_reason(std::string(problem.reason));
  detail.set_field(problem.field);
  detail.set_limit(problem.limit);
  detail.set_actual(problem.actual);
  return Attach(std::move(status), detail);
}

absl::Status WithReason(absl::Status status, absl::string_view reason, absl::string_view field) {
  v1::ErrorDetail detail = DetailOf(status);
  detail.set_reason(std::string(reason));
  if (!field.empty()) detail.set_field(std::string(field));
  return Attach(std::move(status), detail);
}

absl::Status PrefixField(const absl::Status& status, absl::string_view prefix) {
  v1::ErrorDetail detail = DetailOf(status);
  detail.set_field(detail.field().empty() ? std::string(prefix) : absl::StrCat(prefix, ".", detail.field()));
  const absl::string_view separator = detail.field().size() == prefix.size() ? ": " : ".";
  return Attach(absl::Status(status.code(), absl::StrCat(prefix, separator, status.message())), detail);
}

v1::ErrorDetail DetailOf(const absl::Status& status) {
  v1::ErrorDetail detail;
  if (const auto payload = status.GetPayload(kErrorDetailUrl); payload.has_value()) {
    if (detail.ParseFromString(std::string(*payload))) return detail;
    detail.Clear();
  }
  const std::string refusal = GetRefusalReason(status);
  detail.set_reason(refusal.empty() ? std::string(ReasonOfCode(status.code())) : refusal);
  if (const auto retry_after = GetRetryAfter(status); retry_after.has_value()) {
    detail.set_retry_after_ms(absl::ToInt64Milliseconds(*retry_after));
  }
  return detail;
}

}  // namespace beamline::server
