// SPDX-License-Identifier: Apache-2.0
#include "server/open_files.h"

#include <cerrno>

#include <sys/resource.h>

#include "absl/strings/str_cat.h"

namespace beamline::server {

absl::Status EnsureOpenFiles(int64_t least) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return absl::ErrnoToStatus(errno, "cannot read the limit of open files");
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
      return absl::ErrnoToStatus(errno, "cannot raise the limit of open files");
  }
  if (limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= static_cast<rlim_t>(least)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("open files: this process may have ", limit.rlim_cur, " (ulimit -Hn), limits.min_open_files is ",
                   least, "; raise the first, or lower the second and take fewer connections"));
}

}  // namespace beamline::server
