// SPDX-License-Identifier: Apache-2.0
#include "server/server_counters.h"

#include "server/status_detail.h"

namespace beamline::server {

void ServerCounters::Ended(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
    case absl::StatusCode::kNotFound:
      return;
    case absl::StatusCode::kInvalidArgument: {
      const std::string reason = DetailOf(status).reason();
      // Mostly a client that gave up while its message was on the way, which gRPC tells us after this.
      if (reason == kMessageMissing) return cancelled.Add();
      return (reason == kMalformedMessage || reason == kUnknownFields ? malformed : invalid).Add();
    }
    case absl::StatusCode::kResourceExhausted: {
      const std::string reason = DetailOf(status).reason();
      return (reason == kMetadataTooLarge ? invalid : reason == kOutOfMemory ? failed : refused).Add();
    }
    case absl::StatusCode::kCancelled:
      return cancelled.Add();
    case absl::StatusCode::kDeadlineExceeded:
      return expired.Add();
    case absl::StatusCode::kUnavailable:  // else a device or a history store that failed
      return (DetailOf(status).reason() == kStopping ? stopping : failed).Add();
    default:
      return failed.Add();
  }
}

}  // namespace beamline::server
