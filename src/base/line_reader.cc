// SPDX-License-Identifier: Apache-2.0
#include "base/line_reader.h"

#include <cerrno>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"

namespace beamline {
namespace {

constexpr size_t kBufferBytes = 256 << 10;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

void LineReader::Closer::operator()(gzFile_s* file) const { gzclose_r(file); }

LineReader::LineReader(std::string name, std::unique_ptr<gzFile_s, Closer> file, uint64_t file_bytes,
                       uint64_t max_line_bytes)
    : name_(std::move(name)),
      file_(std::move(file)),
      file_bytes_(file_bytes),
      max_line_bytes_(max_line_bytes),
      buffer_(kBufferBytes) {}

absl::StatusOr<LineReader> LineReader::Open(const std::filesystem::path& path, uint64_t max_line_bytes) {
  // O_NONBLOCK: opening a pipe must fail below instead of waiting for its writer.
  const int descriptor = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path.string()));
  struct stat info;
  if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(descriptor);
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
  }
  std::unique_ptr<gzFile_s, Closer> file(gzdopen(descriptor, "rb"));
  if (file == nullptr) {
    close(descriptor);
    return absl::ResourceExhaustedError(absl::StrCat(path.string(), ": no memory to open the file"));
  }
  gzbuffer(file.get(), kBufferBytes);
  return LineReader(path.string(), std::move(file), static_cast<uint64_t>(info.st_size), max_line_bytes);
}

uint64_t LineReader::bytes_read() const {
  const z_off_t offset = gzoffset(file_.get());
  return offset < 0 ? 0 : static_cast<uint64_t>(offset);
}

absl::StatusOr<bool> LineReader::Refill() {
  const int count = gzread(file_.get(), buffer_.data(), static_cast<unsigned>(buffer_.size()));
  int error = Z_OK;
  const char* message = gzerror(file_.get(), &error);
  if (count < 0 || error == Z_BUF_ERROR || error == Z_DATA_ERROR) {
    return absl::DataLossError(absl::StrCat(name_, ": damaged or truncated after line ", line_number_, ": ", message));
  }
  begin_ = 0;
  end_ = static_cast<size_t>(count);
  return count > 0;
}

absl::StatusOr<bool> LineReader::Next(std::string_view* line) {
  pending_.clear();
  bool too_long = false;
  bool any = false;
  while (true) {
    if (begin_ == end_) {
      BEAMLINE_ASSIGN_OR_RETURN(const bool more, Refill());
      if (!more) break;
    }
    any = true;
    const char* start = buffer_.data() + begin_;
    const char* newline = static_cast<const char*>(std::memchr(start, '\n', end_ - begin_));
    const size_t length = newline != nullptr ? static_cast<size_t>(newline - start) : end_ - begin_;
    begin_ += length + (newline != nullptr ? 1 : 0);
    if (pending_.size() + length > max_line_bytes_ + 1) too_long = true;  // + 1: a CR that is removed below
    if (newline != nullptr && pending_.empty() && !too_long) {
      *line = std::string_view(start, length);
      break;
    }
    if (!too_long) pending_.append(start, length);
    *line = pending_;
    if (newline != nullptr) break;
  }
  if (!any) return false;
  ++line_number_;
  if (!line->empty() && line->back() == '\r') line->remove_suffix(1);
  if (too_long || line->size() > max_line_bytes_) {
    return absl::OutOfRangeError(
        absl::StrCat(name_, ":", line_number_, ": line longer than the limit of ", max_line_bytes_, " bytes"));
  }
  if (line_number_ == 1 && line->starts_with(kByteOrderMark)) line->remove_prefix(kByteOrderMark.size());
  return true;
}

}  // namespace beamline
