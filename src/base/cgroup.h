// SPDX-License-Identifier: Apache-2.0
//
// The control groups (version 2) this process is in, which bound what it may have of the machine: a container's limits.
// Thread-safe.
#pragma once

#include <string>
#include <vector>

namespace beamline {

// Where the system tells them; tests have folders of their own.
struct CgroupFiles {
  std::string own = "/proc/self/cgroup";
  std::string root = "/sys/fs/cgroup";
};

// The folders of the process's own group and of all above it, each of which limits it too. Inside a container's own
// namespace that is the root alone.
std::vector<std::string> CgroupFolders(const CgroupFiles& files = {});

// Processors this process may keep busy: those it may run on (taskset, cpusets), no more than the least quota of its
// groups (cpu.max), rounded up. At least 1.
int UsableCores(const CgroupFiles& files = {});

}  // namespace beamline
