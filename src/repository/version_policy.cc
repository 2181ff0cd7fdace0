// SPDX-License-Identifier: Apache-2.0
#include "repository/version_policy.h"

#include <algorithm>

#include "base/may_pass.h"

namespace beamline::repository {

absl::Time RetryAt(const absl::Status& error, absl::Time now, absl::Duration delay, int tries) {
  constexpr int kMostDoublings = 5;
  if (IsMarkedMayPass(error)) return now + delay * (1 << std::clamp(tries - 1, 0, kMostDoublings));
  // An input or output error of the system is UNKNOWN, a stale handle of a network's disk ABORTED; a file that is not
  // there may be back with the same times (a mount, a folder that was moved away).
  const bool transient = absl::IsUnavailable(error) || absl::IsNotFound(error) || absl::IsResourceExhausted(error) ||
                         absl::IsPermissionDenied(error) || absl::IsUnknown(error) || absl::IsAborted(error) ||
                         absl::IsDeadlineExceeded(error);
  return transient ? now + delay : absl::InfiniteFuture();
}

const FolderVersion* NextVersion(absl::Span<const FolderVersion> available, int64_t floor, const Refusals& refusals,
                                 absl::Time now) {
  for (auto version = available.rbegin(); version != available.rend(); ++version) {
    if (version->number <= floor) break;
    const auto refusal = refusals.find(version->number);
    if (refusal == refusals.end() || refusal->second.stamp != version->stamp || refusal->second.retry_at <= now) {
      return &*version;
    }
  }
  return nullptr;
}

}  // namespace beamline::repository
