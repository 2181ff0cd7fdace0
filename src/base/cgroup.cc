// SPDX-License-Identifier: Apache-2.0
#include "base/cgroup.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <fstream>
#include <thread>

#include <sched.h>

#include "absl/strings/match.h"

namespace beamline {
namespace {

// "/a/b" of the line "0::/a/b", the one of version 2.
std::string OwnGroup(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    if (absl::StartsWith(line, "0::/")) return line.substr(3);
  }
  return "/";
}

// glibc's own count, and so the standard library's, is of the processors that are online.
int64_t AllowedCores() {
  for (size_t most = 1024; most <= (size_t{1} << 20); most *= 2) {
    cpu_set_t* const set = CPU_ALLOC(most);
    if (set == nullptr) break;
    const size_t bytes = CPU_ALLOC_SIZE(most);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    const int count = known ? CPU_COUNT_S(bytes, set) : 0;
    CPU_FREE(set);
    if (count > 0) return count;
    if (known || errno != EINVAL) break;  // EINVAL: the machine has more
  }
  return std::max<int64_t>(1, std::thread::hardware_concurrency());
}

}  // namespace

std::vector<std::string> CgroupFolders(const CgroupFiles& files) {
  std::vector<std::string> folders;
  for (std::string group = OwnGroup(files.own);; group.resize(group.rfind('/'))) {
    folders.push_back(files.root + group);
    if (group.empty()) return folders;
  }
}

int UsableCores(const CgroupFiles& files) {
  int64_t cores = AllowedCores();
  for (const std::string& folder : CgroupFolders(files)) {
    std::ifstream file(folder + "/cpu.max");
    int64_t quota = 0, period = 0;  // microseconds; "max" for no quota
    if (file >> quota >> period && quota > 0 && period > 0) cores = std::min(cores, (quota - 1) / period + 1);
  }
  return static_cast<int>(cores);
}

}  // namespace beamline
