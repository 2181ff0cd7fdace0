// SPDX-License-Identifier: Apache-2.0
//
// File descriptors: every connection needs one, and a gRPC server that has run out of them may never accept again.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace beamline::server {

// Raises this process's soft limit of open files to the hard one. FAILED_PRECONDITION when that is below `least`; the
// message has both numbers. Call it before threads open files.
absl::Status EnsureOpenFiles(int64_t least);

}  // namespace beamline::server
