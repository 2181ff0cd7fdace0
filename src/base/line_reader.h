// SPDX-License-Identifier: Apache-2.0
//
// Streams the lines of a plain or gzip file (recognised by content) in constant memory, with line numbers for error
// messages. A line ends with LF or CRLF, which is removed, as is a UTF-8 byte order mark; the last line may lack its
// end. Not thread-safe. Errors name the file and, where there is one, the line: OUT_OF_RANGE for a line over the limit
// (it is skipped: calling Next again goes on with the line after it), DATA_LOSS for damaged or truncated gzip data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/gzip_input.h"

namespace beamline {

class LineReader {
 public:
  static constexpr uint64_t kDefaultMaxLineBytes = 1 << 20;

  static absl::StatusOr<LineReader> Open(const std::filesystem::path& path,
                                         uint64_t max_line_bytes = kDefaultMaxLineBytes);

  // The next line; false at the end. `line` stays valid until the next call.
  absl::StatusOr<bool> Next(std::string_view* line);

  int64_t line_number() const { return line_number_; }         // of the last line returned or refused; the first is 1
  uint64_t file_bytes() const { return input_.file_bytes(); }  // size on disk, for progress
  uint64_t bytes_read() const { return input_.offset(); }      // of them, read so far
  const std::string& name() const { return name_; }            // the path, for error messages

 private:
  LineReader(std::string name, GzipInput input, uint64_t max_line_bytes);
  absl::StatusOr<bool> Refill();  // false at the end of the file

  std::string name_;
  GzipInput input_;
  uint64_t max_line_bytes_;
  std::vector<char> buffer_;
  size_t begin_ = 0;  // unread part of the buffer
  size_t end_ = 0;
  std::string pending_;  // a line that crosses a buffer's end
  int64_t line_number_ = 0;
};

}  // namespace beamline
