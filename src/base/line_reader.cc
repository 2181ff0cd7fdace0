// SPDX-License-Identifier: Apache-2.0
#include "base/line_reader.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"

namespace beamline {
namespace {

constexpr size_t kLineBufferBytes = 256 << 10;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

}  // namespace

LineReader::LineReader(std::string name, GzipInput input, uint64_t max_line_bytes)
    : name_(std::move(name)), input_(std::move(input)), max_line_bytes_(max_line_bytes), buffer_(kLineBufferBytes) {}

absl::StatusOr<LineReader> LineReader::Open(const std::filesystem::path& path, uint64_t max_line_bytes) {
  BEAMLINE_ASSIGN_OR_RETURN(GzipInput input, GzipInput::Open(path));
  return LineReader(path.string(), std::move(input), max_line_bytes);
}

absl::StatusOr<bool> LineReader::Refill() {
  const absl::StatusOr<size_t> count = input_.Read(buffer_.data(), buffer_.size());
  if (!count.ok()) {
    return absl::Status(count.status().code(), absl::StrCat(name_, ": damaged or truncated after line ", line_number_,
                                                            ": ", count.status().message()));
  }
  begin_ = 0;
  end_ = *count;
  return end_ > 0;
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
