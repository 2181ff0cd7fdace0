// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/memory.h"
#include "beamline/status.h"

namespace beamline {
namespace {

absl::Status SystemError(int error, std::string_view action, const std::filesystem::path& path) {
  return StatusOfErrno(error, absl::StrCat(std::string(action), " ", path.string()));
}

// Closes the descriptor on every way out.
class ScopedDescriptor {
 public:
  explicit ScopedDescriptor(int descriptor) : descriptor_(descriptor) {}
  ScopedDescriptor(const ScopedDescriptor&) = delete;
  ScopedDescriptor& operator=(const ScopedDescriptor&) = delete;
  ~ScopedDescriptor() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

absl::Status SyncFolder(const std::filesystem::path& folder) {
  ScopedDescriptor descriptor(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() < 0) return SystemError(errno, "cannot open folder", folder);
  // Some file systems cannot sync a folder (EINVAL); the rename itself has succeeded there.
  if (fsync(descriptor.get()) != 0 && errno != EINVAL) return SystemError(errno, "cannot sync folder", folder);
  return absl::OkStatus();
}

std::filesystem::path FolderOf(const std::filesystem::path& path) {
  return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
}

// A device, a pipe, a socket: a finished file must not take its place.
bool IsSpecial(const std::filesystem::path& path) {
  std::error_code ignored;
  const std::filesystem::file_status status = std::filesystem::status(path, ignored);
  return std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
}

constexpr uint64_t kFitsAlways = 1 << 20;

int OpenToRead(const std::filesystem::path& path) {
  return open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);  // does not wait for a pipe's writer
}

// Right behind OpenToRead, whose errno it reports.
absl::StatusOr<uint64_t> SizeOfRegular(const ScopedDescriptor& descriptor, const std::filesystem::path& path) {
  if (descriptor.get() < 0) return SystemError(errno, "cannot open", path);
  struct stat info;
  if (fstat(descriptor.get(), &info) != 0) return SystemError(errno, "cannot stat", path);
  if (!S_ISREG(info.st_mode)) return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
  return static_cast<uint64_t>(info.st_size);
}

absl::StatusOr<std::string> ReadBytes(const ScopedDescriptor& descriptor, const std::filesystem::path& path,
                                      uint64_t size) {
  std::string contents(size, '\0');
  uint64_t done = 0;
  while (done < size) {
    const ssize_t count = read(descriptor.get(), contents.data() + done, size - done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(errno, "cannot read", path);
    if (count == 0) {
      return absl::DataLossError(absl::StrCat(path.string(), ": shrank to ", done, " bytes while being read"));
    }
    done += static_cast<uint64_t>(count);
  }
  return contents;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, uint64_t max_bytes) {
  const ScopedDescriptor descriptor(OpenToRead(path));
  BEAMLINE_ASSIGN_OR_RETURN(const uint64_t size, SizeOfRegular(descriptor, path));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": ", size, " bytes are more than the limit of ", max_bytes));
  }
  if (size > kFitsAlways) {
    BEAMLINE_RETURN_IF_ERROR(CheckMemory(absl::StrCat(path.string(), ": its bytes"), static_cast<int64_t>(size),
                                         "give a smaller file, or more memory"));
  }
  return ReadBytes(descriptor, path, size);
}

absl::StatusOr<std::string> ReadFileStart(const std::filesystem::path& path, uint64_t bytes) {
  const ScopedDescriptor descriptor(OpenToRead(path));
  BEAMLINE_ASSIGN_OR_RETURN(const uint64_t size, SizeOfRegular(descriptor, path));
  return ReadBytes(descriptor, path, std::min(size, bytes));
}

absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view contents) {
  BEAMLINE_ASSIGN_OR_RETURN(AtomicFile file, AtomicFile::Create(path));
  BEAMLINE_RETURN_IF_ERROR(file.Write(contents));
  return file.Commit();
}

absl::Status CheckCanWrite(const std::filesystem::path& path, absl::string_view what) {
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  std::error_code ignored;
  if (!std::filesystem::is_directory(folder, ignored)) {
    return absl::NotFoundError(absl::StrCat(what, ": ", folder.string(), " is not a folder; make it first"));
  }
  if (std::filesystem::is_directory(path, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", path.string(), " is a folder; name a file"));
  }
  if (IsSpecial(path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(what, ": ", path.string(), " is no regular file, and would be replaced by one; name a file"));
  }
  if (access(folder.c_str(), W_OK) != 0) {
    return absl::PermissionDeniedError(absl::StrCat(what, ": ", folder.string(), " cannot be written to"));
  }
  return absl::OkStatus();
}

absl::Status CheckReadableFolder(const std::filesystem::path& path) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat(path.string(), ": no such folder"));
  }
  if (error) return SystemError(error.value(), "cannot open folder", path);
  if (!std::filesystem::is_directory(status)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": is not a folder"));
  }
  if (access(path.c_str(), R_OK | X_OK) != 0) return SystemError(errno, "cannot read folder", path);
  return absl::OkStatus();
}

absl::Status CheckNotThere(const std::filesystem::path& path, bool overwrite) {
  std::error_code ignored;
  if (overwrite || !std::filesystem::exists(std::filesystem::symlink_status(path, ignored))) return absl::OkStatus();
  return absl::AlreadyExistsError(
      absl::StrCat(path.string(), ": exists; pass --overwrite to replace it, or name another place"));
}

absl::Status CheckHoldsNo(const std::filesystem::path& folder, std::initializer_list<const char*> names,
                          absl::string_view whose) {
  std::error_code ignored;
  for (const char* name : names) {
    if (!std::filesystem::exists(std::filesystem::symlink_status(folder / name, ignored))) continue;
    return absl::AlreadyExistsError(absl::StrCat((folder / name).string(), ": is of ", whose));
  }
  return absl::OkStatus();
}

absl::Status CheckCanMakeFolder(const std::filesystem::path& path, absl::string_view what) {
  if (path.empty()) return absl::InvalidArgumentError(absl::StrCat(what, ": is empty; name a folder"));
  std::error_code ignored;
  std::filesystem::path there = path.lexically_normal();
  while (!std::filesystem::exists(std::filesystem::symlink_status(there, ignored))) {
    there = there.has_parent_path() && there.parent_path() != there ? there.parent_path() : std::filesystem::path(".");
    if (there == ".") break;
  }
  if (!std::filesystem::is_directory(there, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(what, ": ", there.string(), " exists and is not a folder"));
  }
  if (access(there.c_str(), W_OK | X_OK) == 0) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat(what, ": ", there.string(), " cannot be written to"));
}

absl::Status MakeFolder(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return SystemError(error.value(), "cannot make folder", path);
  if (!std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": exists and is not a folder"));
  }
  return absl::OkStatus();
}

AtomicFile::AtomicFile(std::filesystem::path path, std::filesystem::path temporary, int descriptor)
    : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      size_(other.size_) {}

AtomicFile& AtomicFile::operator=(AtomicFile&& other) noexcept {
  if (this != &other) {
    Discard();
    path_ = std::move(other.path_);
    temporary_ = std::move(other.temporary_);
    descriptor_ = std::exchange(other.descriptor_, -1);
    size_ = other.size_;
  }
  return *this;
}

AtomicFile::~AtomicFile() { Discard(); }

void AtomicFile::Discard() {
  if (descriptor_ < 0) return;
  close(std::exchange(descriptor_, -1));
  unlink(temporary_.c_str());
}

absl::StatusOr<AtomicFile> AtomicFile::Create(const std::filesystem::path& path) {
  std::error_code error;
  if (!path.has_filename() || std::filesystem::is_directory(path, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", path.string(), "' is a folder or empty; a file name is needed"));
  }
  if (IsSpecial(path)) {
    return absl::InvalidArgumentError(
        absl::StrCat(path.string(), ": is no regular file, and would be replaced by one; name a file"));
  }
  std::string pattern = (FolderOf(path) / absl::StrCat(".", path.filename().string(), ".XXXXXX")).string();
  const int descriptor = mkostemp(pattern.data(), O_CLOEXEC);
  if (descriptor < 0) return SystemError(errno, "cannot create a temporary file for", path);
  AtomicFile file(path, pattern, descriptor);
  // mkostemp makes the file private; what a program writes should be as readable as any other output.
  if (fchmod(descriptor, S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH) != 0) return SystemError(errno, "cannot chmod", path);
  return file;
}

absl::Status AtomicFile::Write(std::string_view bytes) {
  BEAMLINE_RETURN_IF_ERROR(WriteAt(size_, bytes));
  size_ += bytes.size();
  return absl::OkStatus();
}

absl::Status AtomicFile::WriteAt(uint64_t offset, std::string_view bytes) {
  if (descriptor_ < 0) return absl::FailedPreconditionError(absl::StrCat(path_.string(), ": already committed"));
  while (!bytes.empty()) {
    const ssize_t count = pwrite(descriptor_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return SystemError(errno, "cannot write", path_);
    bytes.remove_prefix(static_cast<size_t>(count));
    offset += static_cast<uint64_t>(count);
  }
  return absl::OkStatus();
}

absl::Status AtomicFile::Commit() {
  if (descriptor_ < 0) return absl::FailedPreconditionError(absl::StrCat(path_.string(), ": already committed"));
  if (fsync(descriptor_) != 0) return SystemError(errno, "cannot sync", path_);
  if (rename(temporary_.c_str(), path_.c_str()) != 0) return SystemError(errno, "cannot rename into place", path_);
  const int descriptor = std::exchange(descriptor_, -1);
  if (close(descriptor) != 0) return SystemError(errno, "cannot close", path_);
  return SyncFolder(FolderOf(path_));
}

}  // namespace beamline
