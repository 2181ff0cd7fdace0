// SPDX-License-Identifier: Apache-2.0
//
// Item attributes by position (an item's number in SID order), one array per attribute: what a catalogue file stores
// and a snapshot serves. Also the checks of a single item, which builder and loader share (limits.h; row C5.10 of
// the bad-input catalogue). A plain value.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/catalogue.h"

namespace beamline::catalogue {

inline constexpr uint64_t kMaxItems = 0xfffffffeull;  // positions are 32 bit; 2^32 - 1 stands for "none"

struct ItemColumns {
  std::vector<uint64_t> item_id;
  std::vector<uint64_t> author;
  std::vector<int64_t> duration_ms;
  std::vector<int64_t> created_ms;
  std::vector<float> relevance;
  std::vector<uint64_t> title_offsets{0};  // [items + 1] into titles
  std::string titles;
  std::vector<uint64_t> tag_offsets{0};  // [items + 1] into tags
  std::vector<uint32_t> tags;            // ids of the tag dictionary, ascending inside an item

  uint64_t size() const { return item_id.size(); }
  absl::string_view title(uint64_t position) const {
    return absl::string_view(titles).substr(title_offsets[position],
                                            title_offsets[position + 1] - title_offsets[position]);
  }
  absl::Span<const uint32_t> tag_ids(uint64_t position) const {
    return absl::MakeConstSpan(tags).subspan(tag_offsets[position], tag_offsets[position + 1] - tag_offsets[position]);
  }
  uint64_t bytes() const;
};

// INVALID_ARGUMENT, naming the field: a negative duration, a relevance that is not finite, a title that is too long,
// not UTF-8 or has control characters.
absl::Status CheckAttributes(int64_t duration_ms, float relevance, absl::string_view title);

// INVALID_ARGUMENT unless `text` is UTF-8 without control characters and at most `max_bytes` long; `field` names it.
absl::Status CheckText(absl::string_view text, size_t max_bytes, absl::string_view field);

}  // namespace beamline::catalogue
