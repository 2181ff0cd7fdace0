// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_columns.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace beamline::catalogue {
namespace {

// Length of the well-formed UTF-8 sequence at the start of `text` (Unicode table 3-7); 0 when there is none.
size_t Utf8Length(absl::string_view text) {
  const auto byte = [text](size_t at) { return at < text.size() ? static_cast<uint8_t>(text[at]) : 0; };
  const auto continues = [&](size_t at) { return (byte(at) & 0xc0) == 0x80; };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    if (first == 0xe0 && byte(1) < 0xa0) return 0;  // overlong
    if (first == 0xed && byte(1) > 0x9f) return 0;  // surrogate
    return continues(1) && continues(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    if (first == 0xf0 && byte(1) < 0x90) return 0;  // overlong
    if (first == 0xf4 && byte(1) > 0x8f) return 0;  // beyond U+10FFFF
    return continues(1) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

}  // namespace

uint64_t ItemColumns::bytes() const {
  return size() * (sizeof(uint64_t) * 2 + sizeof(int64_t) * 2 + sizeof(float)) + titles.size() +
         (title_offsets.size() + tag_offsets.size()) * sizeof(uint64_t) + tags.size() * sizeof(uint32_t);
}

absl::Status CheckText(absl::string_view text, size_t max_bytes, absl::string_view field) {
  if (text.size() > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": is ", text.size(), " bytes long, at most ", max_bytes, " are allowed"));
  }
  for (size_t at = 0; at < text.size();) {
    const uint8_t byte = static_cast<uint8_t>(text[at]);
    if (byte < 0x20 || byte == 0x7f) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": has control character 0x", absl::Hex(byte, absl::kZeroPad2), " at byte ", at));
    }
    const size_t length = Utf8Length(text.substr(at, 4));
    if (length == 0) return absl::InvalidArgumentError(absl::StrCat(field, ": is not UTF-8 at byte ", at));
    at += length;
  }
  return absl::OkStatus();
}

absl::Status CheckAttributes(int64_t duration_ms, float relevance, absl::string_view title) {
  if (duration_ms < 0) {
    return absl::InvalidArgumentError(absl::StrCat("duration_ms: is ", duration_ms, ", must not be negative"));
  }
  if (!std::isfinite(relevance)) {
    return absl::InvalidArgumentError(absl::StrCat("relevance: is ", relevance, ", must be finite"));
  }
  return CheckText(title, kMaxTitleBytes, "title");
}

}  // namespace beamline::catalogue
