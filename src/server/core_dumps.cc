// SPDX-License-Identifier: Apache-2.0
#include "server/core_dumps.h"

#include <cerrno>

#include <sys/prctl.h>
#include <sys/resource.h>

namespace beamline::server {

absl::Status ForbidCoreDumps() {
  const rlimit none{0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) return absl::ErrnoToStatus(errno, "cannot forbid core dumps (RLIMIT_CORE)");
  if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0) {
    return absl::ErrnoToStatus(errno, "cannot forbid core dumps (PR_SET_DUMPABLE)");
  }
  return absl::OkStatus();
}

}  // namespace beamline::server
