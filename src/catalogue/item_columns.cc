// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_columns.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "beamline/limits.h"

namespace beamline::catalogue {

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
    const size_t length = Utf8Length(text.substr(at));
    if (length == 0) return absl::InvalidArgumentError(absl::StrCat(field, ": is not UTF-8 at byte ", at));
    if (IsControl(text.substr(at))) {
      return absl::InvalidArgumentError(
          absl::StrCat(field, ": has control character 0x",
                       absl::Hex(static_cast<uint8_t>(text[at + length - 1]), absl::kZeroPad2), " at byte ", at));
    }
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
