// SPDX-License-Identifier: Apache-2.0
//
// Whole-file reading and all-or-nothing writing. ReadFile copies a regular file into private memory, so that a file
// truncated or replaced later cannot hurt a running process. AtomicFile writes to a temporary name beside the target
// and renames it into place on Commit, so that an interrupted program leaves no half-written file under its final name.
// Neither is thread-safe. Errors name the path: NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT (not a regular file,
// larger than the limit), or UNAVAILABLE / RESOURCE_EXHAUSTED as the system reports.
#pragma once

#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace beamline {

// The contents of a regular file of at most `max_bytes` and of no more than the memory that is free (both checked
// before anything is allocated). Symbolic links are followed; folders, devices and pipes are refused without blocking.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, uint64_t max_bytes);

// Its first `bytes`, or all where there are fewer: for whoever can tell from them that a file of gigabytes is not his.
absl::StatusOr<std::string> ReadFileStart(const std::filesystem::path& path, uint64_t bytes);

// Writes `contents` through an AtomicFile.
absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view contents);

// NOT_FOUND or PERMISSION_DENIED unless a file could be written at `path` now: asked before hours of work, with `what`
// (the flag) in front of the message.
absl::Status CheckCanWrite(const std::filesystem::path& path, absl::string_view what);
// ALREADY_EXISTS, with the flag that replaces it, where there is something and it is not to be replaced.
absl::Status CheckNotThere(const std::filesystem::path& path, bool overwrite);
// ALREADY_EXISTS, "PATH: is of WHOSE", where the folder has one of these files, which no flag replaces.
absl::Status CheckHoldsNo(const std::filesystem::path& folder, std::initializer_list<const char*> names,
                          absl::string_view whose);
// Whether MakeFolder can be expected to make it and files can be written there. Makes nothing.
absl::Status CheckCanMakeFolder(const std::filesystem::path& path, absl::string_view what);

// NOT_FOUND, PERMISSION_DENIED or INVALID_ARGUMENT unless it is a folder whose files can be listed and opened.
absl::Status CheckReadableFolder(const std::filesystem::path& path);

// A folder that exists afterwards, with its parents.
absl::Status MakeFolder(const std::filesystem::path& path);

class AtomicFile {
 public:
  // Creates the temporary file beside `path`, whose folder must exist. Nothing appears under `path` before Commit.
  static absl::StatusOr<AtomicFile> Create(const std::filesystem::path& path);

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&& other) noexcept;
  ~AtomicFile();  // removes the temporary file unless committed

  absl::Status Write(std::string_view bytes);                     // appends
  absl::Status WriteAt(uint64_t offset, std::string_view bytes);  // overwrites, e.g. a header that is known last
  absl::Status Commit();                                          // fsync, rename, fsync of the folder

  uint64_t size() const { return size_; }  // bytes appended so far
  const std::filesystem::path& path() const { return path_; }

 private:
  AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int descriptor);
  void Discard();

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace beamline
