// SPDX-License-Identifier: Apache-2.0
//
// What the server counts about calls, told by ModelService.GetStatus, on the metrics page (which alone tells of refused
// connections) and in the log at the end. Thread-safe.
#pragma once

#include "absl/status/status.h"
#include "base/metrics.h"

namespace beamline::server {

struct ServerCounters {
  Counter calls;
  Counter malformed;  // not a message of the expected type, or too many unknown fields
  Counter invalid;    // a field was wrong, the metadata too large, or the answer
  Counter refused;    // there was too much to do, see ErrorDetail.reason
  Counter cancelled;  // the client went away, maybe before its message was here
  Counter expired;    // a cancel at the end of the caller's time among them (base/deadline.h)
  Counter stopping;   // refused as every call is while the server stops: a rolling restart, no incident
  Counter failed;     // everything else that was neither OK nor NOT_FOUND; calls that a stop cut off, too
  Gauge in_flight;
  Counter refused_connections;  // beyond limits.max_connections, or what the open files allow

  // Counts the end of a call; OK and NOT_FOUND, an answer too, count nowhere.
  void Ended(const absl::Status& status);
};

}  // namespace beamline::server
