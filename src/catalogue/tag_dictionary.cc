// SPDX-License-Identifier: Apache-2.0
#include "catalogue/tag_dictionary.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "beamline/limits.h"
#include "beamline/status.h"
#include "catalogue/item_columns.h"

namespace beamline::catalogue {

absl::StatusOr<uint32_t> TagDictionary::Intern(absl::string_view key, absl::string_view value) {
  if (const std::optional<uint32_t> known = Find(key, value)) return *known;
  if (key.empty()) return absl::InvalidArgumentError("tags: a key is empty; give every tag a key");
  BEAMLINE_RETURN_IF_ERROR(CheckText(key, kMaxNameBytes, "tag key"));
  BEAMLINE_RETURN_IF_ERROR(CheckText(value, kMaxValueBytes, absl::StrCat("value of tag '", key, "'")));
  if (tags_.size() >= kMaxTags) {
    return absl::ResourceExhaustedError(absl::StrCat("tags: more than ", kMaxTags, " distinct (key, value) pairs"));
  }
  const uint32_t id = size();
  tags_.emplace_back(key, value);
  ids_.emplace(tags_.back(), id);
  return id;
}

std::optional<uint32_t> TagDictionary::Find(absl::string_view key, absl::string_view value) const {
  const auto found = ids_.find(Tag(std::string(key), std::string(value)));
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

TagDictionary TagDictionary::Sorted(const std::vector<bool>& used, std::vector<uint32_t>* new_ids) const {
  std::vector<uint32_t> order;
  for (uint32_t id = 0; id < size(); ++id) {
    if (used[id]) order.push_back(id);
  }
  std::sort(order.begin(), order.end(), [this](uint32_t a, uint32_t b) { return tags_[a] < tags_[b]; });
  TagDictionary sorted;
  new_ids->assign(tags_.size(), 0);
  for (uint32_t id = 0; id < order.size(); ++id) {
    (*new_ids)[order[id]] = id;
    sorted.tags_.push_back(tags_[order[id]]);
    sorted.ids_.emplace(sorted.tags_.back(), id);
  }
  return sorted;
}

}  // namespace beamline::catalogue
