// SPDX-License-Identifier: Apache-2.0
#include "base/memory.h"

#include <fstream>
#include <limits>
#include <string>

#include "absl/strings/str_format.h"

namespace beamline {

int64_t AvailableMemory() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key, unit;
  int64_t kilobytes = 0;
  while (meminfo >> key >> kilobytes && std::getline(meminfo, unit)) {
    if (key == "MemAvailable:") return kilobytes * 1024;
  }
  return std::numeric_limits<int64_t>::max();
}

absl::Status CheckAvailableMemory(absl::string_view what, int64_t needed_bytes) {
  const int64_t available = AvailableMemory();
  if (needed_bytes <= available) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat("%s need about %.2f GB of memory, %.2f GB are free", what,
                                                      static_cast<double>(needed_bytes) * 1e-9,
                                                      static_cast<double>(available) * 1e-9));
}

}  // namespace beamline
