// SPDX-License-Identifier: Apache-2.0
//
// A folder that one process at a time writes into, by flock(2): it is let go when the object is destroyed, and however
// the process ends. Who does not ask for the lock is not held up. A file system without such locks (some network ones)
// gives none and no error. Move-only.
#pragma once

#include <filesystem>
#include <utility>

#include "absl/status/statusor.h"

namespace beamline {

class FolderLock {
 public:
  // Does not wait: ABORTED where another holds it.
  static absl::StatusOr<FolderLock> Take(const std::filesystem::path& folder);

  FolderLock(FolderLock&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  FolderLock& operator=(FolderLock&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~FolderLock();

 private:
  explicit FolderLock(int descriptor) : descriptor_(descriptor) {}

  int descriptor_;
};

}  // namespace beamline
