// SPDX-License-Identifier: Apache-2.0
#include "repository/version_status.h"

namespace beamline::repository {

absl::string_view NameOf(VersionState state) {
  switch (state) {
    case VersionState::kLoading:
      return "loading";
    case VersionState::kWarming:
      return "warming";
    case VersionState::kServing:
      return "serving";
    case VersionState::kStandby:
      return "standby";
    case VersionState::kDraining:
      return "draining";
    case VersionState::kUnloaded:
      return "unloaded";
    case VersionState::kRefused:
      return "refused";
  }
  return "unknown";
}

}  // namespace beamline::repository
