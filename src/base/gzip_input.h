// SPDX-License-Identifier: Apache-2.0
//
// The bytes of a file, plain or gzip (by its first two bytes), decompressed on the way. All of a gzip file counts: any
// number of members, each with its checksum, and nothing behind the last; zlib's own gzread passes silently over what
// it takes for padding there, and that may be half a log. Not thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

struct z_stream_s;  // NOLINT(readability-identifier-naming): zlib's

namespace beamline {

class GzipInput {
 public:
  // Errors: no regular file, no memory.
  static absl::StatusOr<GzipInput> Open(const std::filesystem::path& path);

  // Up to `size` bytes; 0 at the end alone. DATA_LOSS says what is damaged, without the file's name.
  absl::StatusOr<size_t> Read(char* out, size_t size);

  uint64_t file_bytes() const { return file_bytes_; }  // on disk
  uint64_t offset() const;                             // of them, read so far

 private:
  struct Closer {
    void operator()(z_stream_s* stream) const;
  };
  class Descriptor {
   public:
    explicit Descriptor(int value) : value_(value) {}
    Descriptor(Descriptor&& other) noexcept;
    Descriptor& operator=(Descriptor&& other) noexcept;
    ~Descriptor();
    int get() const { return value_; }

   private:
    int value_;
  };

  GzipInput(Descriptor file, uint64_t file_bytes);
  absl::Status Refill();  // `raw_` has bytes then, unless the file ended

  Descriptor file_;
  uint64_t file_bytes_;
  uint64_t read_ = 0;  // raw bytes taken from the file
  std::vector<char> raw_;
  size_t begin_ = 0, end_ = 0;                  // what of `raw_` is not used yet
  std::unique_ptr<z_stream_s, Closer> stream_;  // null: plain
  bool in_member_ = false;
};

}  // namespace beamline
