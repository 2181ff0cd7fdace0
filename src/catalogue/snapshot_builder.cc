// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot_builder.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/limits.h"
#include "beamline/status.h"
#include "catalogue/snapshot_check.h"
#include "catalogue/snapshot_file.h"

namespace beamline::catalogue {
namespace {

// Brings a column into the order of `entries`; the old one is freed.
template <typename T, typename Entry>
void Permute(std::vector<T>& column, const std::vector<Entry>& entries) {
  std::vector<T> sorted;
  sorted.reserve(entries.size());
  for (const Entry& entry : entries) sorted.push_back(column[entry.row]);
  column = std::move(sorted);
}

// The same for values of variable length behind offsets.
template <typename Values, typename Entry>
void PermuteValues(std::vector<uint64_t>& offsets, Values& values, const std::vector<Entry>& entries) {
  std::vector<uint64_t> sorted_offsets;
  sorted_offsets.reserve(entries.size() + 1);
  sorted_offsets.push_back(0);
  Values sorted;
  sorted.reserve(values.size());
  for (const Entry& entry : entries) {
    sorted.insert(sorted.end(), values.begin() + offsets[entry.row], values.begin() + offsets[entry.row + 1]);
    sorted_offsets.push_back(sorted.size());
  }
  offsets = std::move(sorted_offsets);
  values = std::move(sorted);
}

}  // namespace

absl::StatusOr<SnapshotBuilder> SnapshotBuilder::Create(SnapshotOptions options) {
  BEAMLINE_RETURN_IF_ERROR(CheckIdentifier(options.codebook_fingerprint, "codebook_fingerprint"));
  if (!options.version.empty()) BEAMLINE_RETURN_IF_ERROR(CheckIdentifier(options.version, "version"));
  BEAMLINE_RETURN_IF_ERROR(CheckLevelSizes(options.level_sizes));
  SnapshotBuilder builder(std::move(options));
  const uint64_t expected = std::min(builder.options_.expected_items, kMaxItems);
  builder.keys_.reserve(expected);
  builder.rows_.item_id.reserve(expected);
  builder.rows_.author.reserve(expected);
  builder.rows_.duration_ms.reserve(expected);
  builder.rows_.created_ms.reserve(expected);
  builder.rows_.relevance.reserve(expected);
  builder.rows_.title_offsets.reserve(expected + 1);
  builder.rows_.tag_offsets.reserve(expected + 1);
  return builder;
}

absl::Status SnapshotBuilder::Check(const ItemRow& row) const {
  const int levels = static_cast<int>(options_.level_sizes.size());
  if (keys_.size() >= kMaxItems) return absl::ResourceExhaustedError(absl::StrCat("more than ", kMaxItems, " items"));
  if (row.sid.levels() != levels) {
    return absl::InvalidArgumentError(
        absl::StrCat("sid: has ", row.sid.levels(), " codes, the codebook has ", levels, " levels"));
  }
  for (int level = 0; level < levels; ++level) {
    if (row.sid[level] >= options_.level_sizes[level]) {
      return absl::InvalidArgumentError(absl::StrCat("sid[", level, "]: code ", row.sid[level],
                                                     " is out of range, the level has ", options_.level_sizes[level],
                                                     " codes"));
    }
  }
  if (row.tags.size() > kMaxTagsPerItem) {
    return absl::InvalidArgumentError(
        absl::StrCat("tags: has ", row.tags.size(), ", at most ", kMaxTagsPerItem, " are allowed"));
  }
  for (uint32_t tag : row.tags) {
    if (tag >= tags_.size()) return absl::InvalidArgumentError(absl::StrCat("tags: ", tag, " was never interned"));
  }
  return CheckAttributes(row.duration_ms, row.relevance, row.title);
}

absl::Status SnapshotBuilder::Add(const CatalogueItem& item) {
  const ItemAttributes& attributes = item.attributes;
  scratch_.clear();
  for (const auto& [key, value] : attributes.tags) {
    absl::StatusOr<uint32_t> tag = InternTag(key, value);
    if (!tag.ok()) {
      return absl::Status(tag.status().code(), absl::StrCat("item ", item.item, ": ", tag.status().message()));
    }
    scratch_.push_back(*tag);
  }
  return Add(ItemRow{item.item, item.sid, attributes.author, attributes.duration_ms, attributes.created_ms,
                     attributes.relevance, attributes.title, scratch_});
}

absl::Status SnapshotBuilder::Add(const ItemRow& row) {
  if (absl::Status status = Check(row); !status.ok()) {
    return absl::Status(status.code(), absl::StrCat("item ", row.item, ": ", status.message()));
  }
  keys_.push_back({SidKey::FromSid(row.sid), static_cast<uint32_t>(keys_.size())});
  rows_.item_id.push_back(row.item);
  rows_.author.push_back(row.author);
  rows_.duration_ms.push_back(row.duration_ms);
  rows_.created_ms.push_back(row.created_ms);
  rows_.relevance.push_back(row.relevance);
  rows_.titles.append(row.title.data(), row.title.size());
  rows_.title_offsets.push_back(rows_.titles.size());
  rows_.tags.insert(rows_.tags.end(), row.tags.begin(), row.tags.end());
  rows_.tag_offsets.push_back(rows_.tags.size());
  return absl::OkStatus();
}

void SnapshotBuilder::Sort() {
  std::sort(keys_.begin(), keys_.end(), [this](const Entry& a, const Entry& b) {
    if (a.key != b.key) return a.key < b.key;
    if (rows_.relevance[a.row] != rows_.relevance[b.row]) return rows_.relevance[a.row] > rows_.relevance[b.row];
    return rows_.item_id[a.row] < rows_.item_id[b.row];
  });
  Permute(rows_.item_id, keys_);
  Permute(rows_.author, keys_);
  Permute(rows_.duration_ms, keys_);
  Permute(rows_.created_ms, keys_);
  Permute(rows_.relevance, keys_);
  PermuteValues(rows_.title_offsets, rows_.titles, keys_);
  PermuteValues(rows_.tag_offsets, rows_.tags, keys_);
}

// Ids in (key, value) order, ascending and unique inside an item, without tags that only refused items had.
void SnapshotBuilder::RenumberTags() {
  std::vector<bool> used(tags_.size());
  for (uint32_t tag : rows_.tags) used[tag] = true;
  std::vector<uint32_t> new_ids;
  tags_ = tags_.Sorted(used, &new_ids);
  uint64_t kept = 0;
  uint64_t begin = 0;
  for (uint64_t item = 0; item < rows_.size(); ++item) {
    const uint64_t end = rows_.tag_offsets[item + 1];
    const auto first = rows_.tags.begin() + static_cast<int64_t>(begin);
    const auto last = rows_.tags.begin() + static_cast<int64_t>(end);
    std::transform(first, last, first, [&new_ids](uint32_t tag) { return new_ids[tag]; });
    std::sort(first, last);
    const auto unique_end = std::unique(first, last);
    kept = std::copy(first, unique_end, rows_.tags.begin() + static_cast<int64_t>(kept)) - rows_.tags.begin();
    rows_.tag_offsets[item + 1] = kept;
    begin = end;
  }
  rows_.tags.resize(kept);
}

absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> SnapshotBuilder::Build(Progress* progress) && {
  if (keys_.empty()) return absl::InvalidArgumentError("the catalogue has no items; add at least one");
  const int64_t total = static_cast<int64_t>(keys_.size());
  StartProgress(progress, "sort items by SID", total, "items");
  Sort();
  RenumberTags();
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  UpdateProgress(progress, total);
  FinishProgress(progress);
  StartProgress(progress, "build trie and indexes", total, "items");
  SnapshotContents contents;
  contents.codebook_fingerprint = options_.codebook_fingerprint;
  contents.level_sizes = options_.level_sizes;
  contents.trie = ItemTrie::FromSorted(static_cast<int>(options_.level_sizes.size()), keys_.size(),
                                       [this](uint64_t i) { return keys_[i].key; });
  contents.leaf_items.reserve(uint64_t{contents.trie.num_leaves()} + 1);
  for (uint64_t i = 0; i < keys_.size(); ++i) {
    if (i == 0 || keys_[i].key != keys_[i - 1].key) contents.leaf_items.push_back(static_cast<uint32_t>(i));
  }
  contents.leaf_items.push_back(static_cast<uint32_t>(keys_.size()));
  keys_ = std::vector<Entry>();
  contents.items = std::move(rows_);
  contents.tags = std::move(tags_);
  contents.version = options_.version.empty() ? ContentVersion(contents) : options_.version;
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> snapshot = CatalogueSnapshot::Create(std::move(contents));
  UpdateProgress(progress, total);
  FinishProgress(progress);
  return snapshot;
}

}  // namespace beamline::catalogue
