// SPDX-License-Identifier: Apache-2.0
//
// What the system says about this process, under the names Prometheus' client libraries use (process_*).
#pragma once

#include <cstdint>

namespace beamline::server {

struct ProcessStats {
  double start_seconds = 0;  // since 1970, by the system's clock
  double cpu_seconds = 0;
  int64_t resident_bytes = 0;
  int64_t virtual_bytes = 0;
  int64_t open_fds = 0;
  int64_t max_fds = 0;
};

// Reads /proc; a number that cannot be read is 0. Thread-safe.
ProcessStats ReadProcessStats();

}  // namespace beamline::server
