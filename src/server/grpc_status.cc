// SPDX-License-Identifier: Apache-2.0
#include "server/grpc_status.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/utf8.h"
#include "beamline/retry.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

// Trailers count against the client's metadata limit, 8 KiB by default.
constexpr size_t kMaxMessageBytes = 1024;

// The codes are the same numbers by definition (google.rpc.Code); these are the ones we produce.
static_assert(int(absl::StatusCode::kCancelled) == int(grpc::StatusCode::CANCELLED));
static_assert(int(absl::StatusCode::kInvalidArgument) == int(grpc::StatusCode::INVALID_ARGUMENT));
static_assert(int(absl::StatusCode::kDeadlineExceeded) == int(grpc::StatusCode::DEADLINE_EXCEEDED));
static_assert(int(absl::StatusCode::kResourceExhausted) == int(grpc::StatusCode::RESOURCE_EXHAUSTED));
static_assert(int(absl::StatusCode::kInternal) == int(grpc::StatusCode::INTERNAL));
static_assert(int(absl::StatusCode::kUnavailable) == int(grpc::StatusCode::UNAVAILABLE));

// One line, bounded: an exception's text (INTERNAL) may hold a stack trace in its further lines, which is not for
// clients. What is wrong with an input may be a list below its name: the first entry goes with it. UTF-8 whatever paths
// it names, for a client cannot parse a message with other text.
std::string ClientMessage(const absl::Status& status) {
  const std::pair<absl::string_view, absl::string_view> lines =
      absl::StrSplit(status.message(), absl::MaxSplits('\n', 1));
  std::string message(lines.first);
  if (absl::IsInvalidArgument(status) && absl::EndsWith(message, ":") && !lines.second.empty()) {
    absl::StrAppend(&message, " ", lines.second.substr(0, lines.second.find('\n')));
  }
  return PrintableUtf8(message, kMaxMessageBytes);
}

// Whether the same request would be refused again, however long one waits, or nobody wants it so soon.
bool RefusedAgain(const v1::ErrorDetail& detail) {
  return detail.reason() == kMetadataTooLarge || detail.reason() == kOutOfMemory;
}

v1::ErrorDetail ClientDetail(const absl::Status& status, int64_t retry_after_ms) {
  v1::ErrorDetail detail = DetailOf(status);
  if (status.code() == absl::StatusCode::kResourceExhausted && !RefusedAgain(detail) &&
      (detail.retry_after_ms() == 0 || detail.reason() != kCannotFinish)) {
    detail.set_retry_after_ms(std::max(detail.retry_after_ms(), retry_after_ms));
  }
  return detail;
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status, int64_t retry_after_ms) {
  if (status.ok()) return grpc::Status::OK;
  v1::StatusDetails details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(ClientMessage(status));
  v1::StatusDetails::Detail& detail = *details.add_details();
  detail.set_type_url(kErrorDetailUrl);
  detail.set_value(ClientDetail(status, retry_after_ms).SerializeAsString());
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(), details.SerializeAsString());
}

std::optional<int64_t> RetryPushback(const absl::Status& status, int64_t retry_after_ms) {
  const v1::ErrorDetail detail = ClientDetail(status, retry_after_ms);
  if (!absl::IsResourceExhausted(status) || detail.reason() == kCannotFinish) return std::nullopt;
  if (RefusedAgain(detail)) return -1;
  return detail.retry_after_ms() > 0 ? std::optional(detail.retry_after_ms()) : std::nullopt;
}

v1::BatchRecommendResponse::Result ToBatchResult(const absl::Status& status, int64_t retry_after_ms) {
  v1::BatchRecommendResponse::Result result;
  result.set_code(static_cast<int>(status.code()));
  result.set_message(ClientMessage(status));
  *result.mutable_error() = ClientDetail(status, retry_after_ms);
  return result;
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  v1::StatusDetails details;
  if (details.ParseFromString(status.error_details())) {
    for (const v1::StatusDetails::Detail& detail : details.details()) {
      if (detail.type_url() == kErrorDetailUrl) result.SetPayload(kErrorDetailUrl, absl::Cord(detail.value()));
    }
  }
  return result;
}

}  // namespace beamline::server
