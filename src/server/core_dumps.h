// SPDX-License-Identifier: Apache-2.0
//
// What memory holds (users' histories, the key of TLS) does not belong on a disk.
#pragma once

#include "absl/status/status.h"

namespace beamline::server {

// From now on this process leaves no core dump, neither as a file nor through a collector (which RLIMIT_CORE alone does
// not stop), and no debugger without privileges can attach to it.
absl::Status ForbidCoreDumps();

}  // namespace beamline::server
