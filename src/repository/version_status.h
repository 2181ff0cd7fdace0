// SPDX-License-Identifier: Apache-2.0
//
// What the repository tells about its versions. Plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace beamline::repository {

enum class VersionState : uint8_t {
  kLoading,   // being verified and loaded
  kWarming,   // loaded, being warmed up
  kServing,   // new requests use it
  kStandby,   // the last good version: loaded, ready for a rollback
  kDraining,  // replaced; requests in flight still use it
  kUnloaded,  // its memory is free
  kRefused,   // broken, incompatible, or it failed in the warm-up: see `error`
};
absl::string_view NameOf(VersionState state);  // "loading", ...

struct VersionStatus {
  int64_t id = 0;             // 1, 2, ... in the order of loading, since the start
  std::string path;           // of the bundle
  std::string digest;         // of what is loaded; empty where it could not be identified
  std::string model_version;  // empty until loaded
  std::string catalogue_version;
  VersionState state = VersionState::kLoading;
  absl::Status error;                         // of kRefused
  absl::Time changed = absl::InfinitePast();  // when it entered `state`
  absl::Duration load_time, warm_up_time;     // zero until done
};

// Since the start.
struct RepositoryStats {
  uint64_t served = 0;     // versions that began to serve, rollbacks not counted
  uint64_t refused = 0;    // attempts
  uint64_t unchanged = 0;  // requests for what was being served already
  uint64_t rollbacks = 0;
  bool folder_unreadable = false;  // at the last look, or it held versions and holds none any more
  absl::Time last_swap = absl::InfinitePast();
  int64_t loaded = 0;  // models in memory now
};

}  // namespace beamline::repository
