// SPDX-License-Identifier: Apache-2.0
#include "base/memory.h"

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <limits>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace beamline {
namespace {

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

// The number after `key` in a file of "key number ..." lines.
std::optional<int64_t> ReadKey(const std::string& path, absl::string_view key) {
  std::ifstream file(path);
  std::string found, rest;
  int64_t value = 0;
  while (file >> found >> value && std::getline(file, rest)) {
    if (found == key) return value;
  }
  return std::nullopt;
}

// The number that is all of a file; none for "max", which is no limit.
std::optional<int64_t> ReadNumber(const std::string& path) {
  std::ifstream file(path);
  int64_t value = 0;
  return file >> value ? std::make_optional(value) : std::nullopt;
}

int64_t AvailableInGroup(const std::string& folder) {
  const std::optional<int64_t> limit = ReadNumber(folder + "/memory.max");
  const std::optional<int64_t> used = ReadNumber(folder + "/memory.current");
  if (!limit || !used) return kUnknown;
  int64_t cache = 0;
  for (const char* key : {"inactive_file", "active_file", "slab_reclaimable"}) {
    cache += ReadKey(folder + "/memory.stat", key).value_or(0);
  }
  return std::max<int64_t>(0, *limit - (*used - std::min(cache, *used)));
}

// "2.00 GB", and what would be no more than its last digit in MB.
std::string FormatBytes(int64_t bytes) {
  const double megabytes = static_cast<double>(bytes) * 1e-6;
  return megabytes < 100 ? absl::StrFormat("%.1f MB", megabytes) : absl::StrFormat("%.2f GB", megabytes * 1e-3);
}

int64_t TotalBytes(absl::Span<const MemoryPart> parts) {
  int64_t total = 0;
  for (const MemoryPart& part : parts) total += part.bytes;
  return total;
}

}  // namespace

int64_t AvailableMemory(const MemoryFiles& files) {
  const std::optional<int64_t> kilobytes = ReadKey(files.meminfo, "MemAvailable:");
  int64_t available = kilobytes ? *kilobytes * 1024 : kUnknown;
  for (const std::string& group : CgroupFolders(files.cgroups))
    available = std::min(available, AvailableInGroup(group));
  return available;
}

std::string DescribeMemory(absl::Span<const MemoryPart> parts) {
  return absl::StrJoin(parts, ", ", [](std::string* out, const MemoryPart& part) {
    absl::StrAppend(out, part.what, " ", FormatBytes(part.bytes));
  });
}

absl::Status CheckMemory(absl::string_view what, int64_t needed_bytes, absl::string_view remedy, int64_t limit_bytes) {
  return CheckMemory({.what = std::string(what), .parts = {{"", needed_bytes}}, .remedy = std::string(remedy)},
                     limit_bytes);
}

absl::Status CheckMemory(const MemoryNeed& need, int64_t limit_bytes) {
  const int64_t needed = TotalBytes(need.parts), available = limit_bytes > 0 ? limit_bytes : AvailableMemory();
  if (needed <= available) return absl::OkStatus();
  const bool by_parts = need.parts.size() > 1;
  return absl::ResourceExhaustedError(absl::StrCat(need.what, " need about ", FormatBytes(needed), " of memory",
                                                   by_parts ? absl::StrCat(" (", DescribeMemory(need.parts), ")") : "",
                                                   ", ", FormatBytes(available),
                                                   limit_bytes > 0 ? " is the limit; " : " are free; ", need.remedy));
}

absl::Status CheckDeviceMemory(const MemoryNeed& need, int64_t free_bytes) {
  const int64_t needed = TotalBytes(need.parts);
  if (needed <= free_bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrCat(need.what, " need about ", FormatBytes(needed),
                                                   " of the device's memory (", DescribeMemory(need.parts), "), ",
                                                   FormatBytes(free_bytes), " are free; ", need.remedy));
}

absl::Status StatusOfErrno(int error, absl::string_view message) {
  absl::Status status = absl::ErrnoToStatus(error, message);
  return error == ENOMEM ? absl::ResourceExhaustedError(status.message()) : status;
}

absl::Status BesideEstimate(absl::Status status, absl::string_view estimate, absl::string_view without) {
  constexpr absl::string_view kBefore = "; estimated before";
  if (!absl::IsResourceExhausted(status) || estimate.empty() || absl::StrContains(status.message(), kBefore)) {
    return status;
  }
  return absl::ResourceExhaustedError(
      absl::StrCat(status.message(), kBefore, without.empty() ? "" : ", without ", without, ": ", estimate));
}

}  // namespace beamline
