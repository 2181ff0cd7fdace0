// SPDX-License-Identifier: Apache-2.0
//
// The one place where an absl::Status becomes what a client sees: a grpc::Status with the same code, one line of text
// and, in the `grpc-status-details-bin` trailer, a google.rpc.Status whose detail is a beamline.v1.ErrorDetail; or the
// same inside an entry of BatchRecommendResponse. Pure functions.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/status/status.h"
#include "beamline/v1/recommend.pb.h"
#include "grpcpp/support/status.h"

namespace beamline::server {

// `retry_after_ms` is told to clients that were refused for load (RESOURCE_EXHAUSTED) by a status that does not say it
// itself (beamline/retry.h).
grpc::Status ToGrpcStatus(const absl::Status& status, int64_t retry_after_ms);
// What gRPC's own retries obey instead of their policy's backoff (trailer grpc-retry-pushback-ms, gRFC A6):
// milliseconds to wait, no less than `retry_after_ms`; -1: try no more. Nothing where the policy may decide: of what is
// not RESOURCE_EXHAUSTED, and of CANNOT_FINISH, for attempts share one deadline: waiting brings it no nearer, but
// another replica may be free.
std::optional<int64_t> RetryPushback(const absl::Status& status, int64_t retry_after_ms);
// REQUIRES: !status.ok().
v1::BatchRecommendResponse::Result ToBatchResult(const absl::Status& status, int64_t retry_after_ms);

// The way back, for our client: code, text and detail as they were sent.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace beamline::server
