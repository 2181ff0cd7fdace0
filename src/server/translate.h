// SPDX-License-Identifier: Apache-2.0
//
// beamline.v1 messages to the engine's values and back. Every field is checked against its limit before anything is
// allocated for it; an error names the field's path, the limit and the actual value. Meaning that needs the model is
// checked by the engine again. Pure functions, no gRPC.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "base/check_range.h"
#include "beamline/catalogue.h"
#include "beamline/engine.h"
#include "beamline/limits.h"
#include "beamline/request.h"
#include "beamline/v1/catalogue.pb.h"
#include "beamline/v1/model.pb.h"
#include "beamline/v1/recommend.pb.h"

namespace beamline::server {

struct RequestLimits {
  int levels = 0;  // of the catalogue that is served
  int max_history = 4096;
  int max_top_k = 1000;
  int max_beam_width = 1024;
  int max_eligibility_items = 50000;
  bool accept_critical = false;  // else PRIORITY_CRITICAL counts as default
};

// Of the wire alone; the other fixed limits are in limits.h. The proto states all beside the fields.
inline constexpr int kMaxLabelsPerEvent = 64;
inline constexpr int kDefaultTopK = 10;

// The deadline is the call's, not the message's: the caller sets it. `request_id` comes back cleaned (request_id.h).
absl::StatusOr<RecommendRequest> FromProto(const v1::RecommendRequest& message, const RequestLimits& limits);

v1::RecommendResponse ToProto(const RecommendResult& result, absl::string_view request_id);

void ToProto(const Sid& sid, v1::Sid* message);
v1::Item ToProto(const CatalogueItem& item);
v1::ModelVersion ToProto(const ModelVersion& version);

// A SID of the catalogue's shape; errors name `field`.
absl::StatusOr<Sid> SidFromProto(const v1::Sid& message, const Catalogue& catalogue, absl::string_view field);

// INVALID_ARGUMENT unless low <= value <= high.
absl::Status CheckValue(absl::string_view field, int64_t value, const Bounds& bounds);
// The same of how many there are: "<count> <unit> are outside <low>..<high>".
absl::Status CheckCount(absl::string_view field, int64_t count, const Bounds& bounds);

}  // namespace beamline::server
