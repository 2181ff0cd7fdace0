// SPDX-License-Identifier: Apache-2.0
#include "server/process_stats.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include <sys/resource.h>
#include <unistd.h>

namespace beamline::server {
namespace {

// When the machine booted, and how long after that this process began.
double StartSeconds() {
  double boot = 0;
  std::string name;
  for (std::ifstream file("/proc/stat"); file >> name;) {
    if (name == "btime" && file >> boot) break;
  }
  std::string stat;
  std::getline(std::ifstream("/proc/self/stat"), stat);
  // Behind the program's name, which may hold anything, field 3 is the state and 22 the start in ticks.
  std::istringstream fields(stat.substr(std::min(stat.size(), stat.rfind(')') + 1)));
  for (int field = 3; field < 22; ++field) fields >> name;
  double ticks = 0;
  return fields >> ticks && boot > 0 ? boot + ticks / static_cast<double>(sysconf(_SC_CLK_TCK)) : 0;
}

}  // namespace

ProcessStats ReadProcessStats() {
  ProcessStats stats;
  static const double start_seconds = StartSeconds();
  stats.start_seconds = start_seconds;
  int64_t virtual_pages = 0, resident_pages = 0;
  if (std::ifstream("/proc/self/statm") >> virtual_pages >> resident_pages) {
    stats.virtual_bytes = virtual_pages * sysconf(_SC_PAGESIZE);
    stats.resident_bytes = resident_pages * sysconf(_SC_PAGESIZE);
  }
  rusage usage{};
  if (getrusage(RUSAGE_SELF, &usage) == 0) {
    stats.cpu_seconds = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                        static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  }
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) stats.max_fds = static_cast<int64_t>(limit.rlim_cur);
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/proc/self/fd", error), end; !error && entry != end;
       entry.increment(error)) {
    ++stats.open_fds;
  }
  return stats;
}

}  // namespace beamline::server
