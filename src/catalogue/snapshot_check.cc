// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot_check.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "beamline/limits.h"
#include "beamline/status.h"

namespace beamline::catalogue {
namespace {

template <typename... Args>
absl::Status Error(const Args&... what) {
  return absl::InvalidArgumentError(absl::StrCat(what...));
}

template <typename T>
absl::Status CheckCount(const std::vector<T>& values, uint64_t expected, absl::string_view name) {
  if (values.size() == expected) return absl::OkStatus();
  return Error(name, ": has ", values.size(), " entries, must have ", expected);
}

// Offsets of variable-length values: from 0, never descending, up to `end`.
absl::Status CheckValueOffsets(const std::vector<uint64_t>& offsets, uint64_t items, uint64_t end,
                               absl::string_view name) {
  BEAMLINE_RETURN_IF_ERROR(CheckCount(offsets, items + 1, name));
  if (offsets.front() != 0) return Error(name, ": begins with ", offsets.front(), ", must begin with 0");
  const auto descent = std::adjacent_find(offsets.begin(), offsets.end(), std::greater<>());
  if (descent != offsets.end()) return Error(name, ": descends after entry ", descent - offsets.begin());
  if (offsets.back() != end) return Error(name, ": ends with ", offsets.back(), ", must end with ", end);
  return absl::OkStatus();
}

absl::Status CheckLeafItems(const SnapshotContents& contents) {
  const std::vector<uint32_t>& offsets = contents.leaf_items;
  BEAMLINE_RETURN_IF_ERROR(CheckCount(offsets, uint64_t{contents.trie.num_leaves()} + 1, "leaf_items"));
  if (offsets.front() != 0) return Error("leaf_items: begins with ", offsets.front(), ", must begin with 0");
  const auto empty = std::adjacent_find(offsets.begin(), offsets.end(), std::greater_equal<>());
  if (empty != offsets.end()) return Error("leaf_items: leaf ", empty - offsets.begin(), " has no items");
  if (offsets.back() != contents.items.size()) {
    return Error("leaf_items: ends with ", offsets.back(), ", but there are ", contents.items.size(), " items");
  }
  return absl::OkStatus();
}

// Inside a SID the items stand by relevance, then id.
absl::Status CheckItemOrder(const SnapshotContents& contents) {
  const ItemColumns& items = contents.items;
  for (uint32_t leaf = 0; leaf < contents.trie.num_leaves(); ++leaf) {
    for (uint32_t at = contents.leaf_items[leaf] + 1; at < contents.leaf_items[leaf + 1]; ++at) {
      const float before = items.relevance[at - 1];
      const float here = items.relevance[at];
      if (before < here || (before == here && items.item_id[at - 1] > items.item_id[at])) {
        return Error("items: position ", at, " is not in order of relevance and id within leaf ", leaf);
      }
    }
  }
  return absl::OkStatus();
}

absl::Status CheckTags(const SnapshotContents& contents) {
  const ItemColumns& items = contents.items;
  for (uint32_t tag = 1; tag < contents.tags.size(); ++tag) {
    if (contents.tags[tag - 1] >= contents.tags[tag]) return Error("tag dictionary: entry ", tag, " is not in order");
  }
  for (uint64_t position = 0; position < items.size(); ++position) {
    const absl::Span<const uint32_t> tags = items.tag_ids(position);
    if (tags.size() > kMaxTagsPerItem) {
      return Error("tags: position ", position, " has ", tags.size(), ", at most ", kMaxTagsPerItem, " are allowed");
    }
    for (size_t i = 0; i < tags.size(); ++i) {
      if (tags[i] >= contents.tags.size()) {
        return Error("tags: position ", position, " has tag ", tags[i], " of ", contents.tags.size());
      }
      if (i > 0 && tags[i - 1] >= tags[i]) return Error("tags: those of position ", position, " do not ascend");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckItems(const SnapshotContents& contents) {
  const ItemColumns& items = contents.items;
  const uint64_t count = items.size();
  if (count == 0 || count > kMaxItems) return Error("items: there are ", count, ", must be 1 to ", kMaxItems);
  BEAMLINE_RETURN_IF_ERROR(CheckCount(items.author, count, "author"));
  BEAMLINE_RETURN_IF_ERROR(CheckCount(items.duration_ms, count, "duration_ms"));
  BEAMLINE_RETURN_IF_ERROR(CheckCount(items.created_ms, count, "created_ms"));
  BEAMLINE_RETURN_IF_ERROR(CheckCount(items.relevance, count, "relevance"));
  BEAMLINE_RETURN_IF_ERROR(CheckValueOffsets(items.title_offsets, count, items.titles.size(), "title_offsets"));
  BEAMLINE_RETURN_IF_ERROR(CheckValueOffsets(items.tag_offsets, count, items.tags.size(), "tag_offsets"));
  for (uint64_t position = 0; position < count; ++position) {
    absl::Status status =
        CheckAttributes(items.duration_ms[position], items.relevance[position], items.title(position));
    if (!status.ok()) return Error("position ", position, ": ", status.message());
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckLevelSizes(absl::Span<const uint32_t> level_sizes) {
  if (level_sizes.empty() || level_sizes.size() > kMaxLevels) {
    return Error("level_sizes: has ", level_sizes.size(), " levels, must have 1 to ", kMaxLevels);
  }
  for (size_t level = 0; level < level_sizes.size(); ++level) {
    if (level_sizes[level] < 1 || level_sizes[level] > kMaxLevelSize) {
      return Error("level_sizes[", level, "]: is ", level_sizes[level], ", must be 1 to ", kMaxLevelSize);
    }
  }
  return absl::OkStatus();
}

absl::Status CheckIdentifier(absl::string_view text, absl::string_view field) {
  if (text.empty() || text.size() > 256) return Error(field, ": has ", text.size(), " characters, must have 1 to 256");
  for (char c : text) {
    if (c <= ' ' || c > '~') return Error(field, ": must be printable ASCII without spaces");
  }
  return absl::OkStatus();
}

absl::Status CheckSnapshotContents(const SnapshotContents& contents) {
  BEAMLINE_RETURN_IF_ERROR(CheckIdentifier(contents.version, "version"));
  BEAMLINE_RETURN_IF_ERROR(CheckIdentifier(contents.codebook_fingerprint, "codebook_fingerprint"));
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(contents.level_sizes));
  BEAMLINE_RETURN_IF_ERROR(contents.trie.Check(contents.level_sizes));
  BEAMLINE_RETURN_IF_ERROR(CheckItems(contents));
  BEAMLINE_RETURN_IF_ERROR(CheckLeafItems(contents));
  BEAMLINE_RETURN_IF_ERROR(CheckItemOrder(contents));
  return CheckTags(contents);
}

}  // namespace beamline::catalogue
