// SPDX-License-Identifier: Apache-2.0
//
// A mark on an error, whatever its code: what it tells of may pass without a trace here, so that whoever watches tries
// again after a while (repository/version_policy.h). It stays with copies of the status.
#pragma once

#include "absl/status/status.h"
#include "absl/strings/cord.h"

namespace beamline {

inline constexpr char kMayPassUrl[] = "beamline/may_pass";

inline absl::Status MayPass(absl::Status error) {
  if (!error.ok()) error.SetPayload(kMayPassUrl, absl::Cord());
  return error;
}

inline bool IsMarkedMayPass(const absl::Status& error) { return error.GetPayload(kMayPassUrl).has_value(); }

}  // namespace beamline
