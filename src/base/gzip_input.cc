// SPDX-License-Identifier: Apache-2.0
#include "base/gzip_input.h"

#include <algorithm>
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

constexpr size_t kCompressedBufferBytes = 256 << 10;
constexpr int kGzipAlone = 16 + MAX_WBITS;

}  // namespace

GzipInput::Descriptor::Descriptor(Descriptor&& other) noexcept : value_(std::exchange(other.value_, -1)) {}

GzipInput::Descriptor& GzipInput::Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(value_, other.value_);
  return *this;
}

GzipInput::Descriptor::~Descriptor() {
  if (value_ >= 0) close(value_);
}

void GzipInput::Closer::operator()(z_stream_s* stream) const {
  inflateEnd(stream);
  delete stream;
}

GzipInput::GzipInput(Descriptor file, uint64_t file_bytes)
    : file_(std::move(file)), file_bytes_(file_bytes), raw_(kCompressedBufferBytes) {}

absl::StatusOr<GzipInput> GzipInput::Open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe must fail below instead of waiting for its writer.
  Descriptor descriptor(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  if (descriptor.get() < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path.string()));
  struct stat info;
  if (fstat(descriptor.get(), &info) != 0 || !S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": not a regular file"));
  }
  GzipInput input(std::move(descriptor), static_cast<uint64_t>(info.st_size));
  if (absl::Status status = input.Refill(); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat(path.string(), ": ", status.message()));
  }
  if (input.end_ < 2 || std::memcmp(input.raw_.data(), "\x1f\x8b", 2) != 0) return input;
  input.stream_.reset(new z_stream_s());
  if (inflateInit2(input.stream_.get(), kGzipAlone) != Z_OK) {
    return absl::ResourceExhaustedError(absl::StrCat(path.string(), ": no memory to decompress the file"));
  }
  return input;
}

uint64_t GzipInput::offset() const { return read_ - (end_ - begin_); }

absl::Status GzipInput::Refill() {
  if (begin_ < end_) return absl::OkStatus();
  begin_ = end_ = 0;
  ssize_t count = 0;
  do {
    count = read(file_.get(), raw_.data(), raw_.size());
  } while (count < 0 && errno == EINTR);
  if (count < 0) return absl::DataLossError(absl::StrCat("cannot be read: ", std::strerror(errno)));
  end_ = static_cast<size_t>(count);
  read_ += end_;
  return absl::OkStatus();
}

absl::StatusOr<size_t> GzipInput::Read(char* out, size_t size) {
  size_t done = 0;
  while (done == 0) {
    BEAMLINE_RETURN_IF_ERROR(Refill());
    const bool ended = begin_ == end_;
    if (stream_ == nullptr) {
      done = std::min(size, end_ - begin_);
      std::memcpy(out, raw_.data() + begin_, done);
      begin_ += done;
      return done;
    }
    if (ended && in_member_) return absl::DataLossError("unexpected end of the gzip data");
    if (ended) return 0;
    if (!in_member_ && inflateReset(stream_.get()) != Z_OK) {
      return absl::InternalError("zlib cannot start on another gzip member");
    }
    in_member_ = true;
    stream_->next_in = reinterpret_cast<Bytef*>(raw_.data() + begin_);
    stream_->avail_in = static_cast<uInt>(end_ - begin_);
    stream_->next_out = reinterpret_cast<Bytef*>(out);
    stream_->avail_out = static_cast<uInt>(size);
    const uint64_t at = offset();
    const int result = inflate(stream_.get(), Z_NO_FLUSH);
    begin_ = end_ - stream_->avail_in;
    done = size - stream_->avail_out;
    if (result == Z_STREAM_END) {
      in_member_ = false;
    } else if (result != Z_OK && result != Z_BUF_ERROR) {
      return absl::DataLossError(absl::StrCat("gzip data near byte ", at, " of ", file_bytes_, ": ",
                                              stream_->msg != nullptr ? stream_->msg : "damaged"));
    }
  }
  return done;
}

}  // namespace beamline
