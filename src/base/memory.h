// SPDX-License-Identifier: Apache-2.0
//
// How much memory there is to have, asked before something large is allocated: work that cannot fit is refused with its
// estimate instead of being killed half way. Thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/cgroup.h"

namespace beamline {

// Where the system tells it; tests have folders of their own.
struct MemoryFiles {
  std::string meminfo = "/proc/meminfo";
  CgroupFiles cgroups;
};

// Bytes that can be had without swapping or reaching the limit of a control group (version 2) this process is in: what
// a container is killed for exceeding. A group's file cache counts as free, for the kernel gives it up before it kills,
// as it does for the machine. The largest int64 where the system does not say.
int64_t AvailableMemory(const MemoryFiles& files = {});

// RESOURCE_EXHAUSTED where `needed_bytes`, an estimate, is more than `limit_bytes`, or, that being 0, than is
// available: "WHAT need about X GB of memory, Y GB are free; REMEDY".
absl::Status CheckMemory(absl::string_view what, int64_t needed_bytes, absl::string_view remedy,
                         int64_t limit_bytes = 0);

// An estimate by its parts.
struct MemoryPart {
  std::string what;
  int64_t bytes = 0;
};
struct MemoryNeed {
  std::string what;
  std::vector<MemoryPart> parts;
  std::string remedy;
};

// "weights 1.20 GB, context cache 67.1 MB"
std::string DescribeMemory(absl::Span<const MemoryPart> parts);

// As above, every part named: "WHAT need about X GB of memory (PARTS), ...".
absl::Status CheckMemory(const MemoryNeed& need, int64_t limit_bytes = 0);
// The same of a device that has `free_bytes`.
absl::Status CheckDeviceMemory(const MemoryNeed& need, int64_t free_bytes);

// absl::ErrnoToStatus, but for the memory of a call of the system: RESOURCE_EXHAUSTED as any other, not UNAVAILABLE.
absl::Status StatusOfErrno(int error, absl::string_view message);

// Of what ran out though the estimate fitted: others may take memory meanwhile, and an estimate may be too low. Such a
// status gets the estimate beside it, once, and any other stays as it is: "...; estimated before: ESTIMATE". `without`
// says what the estimate leaves out, if anything.
absl::Status BesideEstimate(absl::Status status, absl::string_view estimate, absl::string_view without = "");

}  // namespace beamline
