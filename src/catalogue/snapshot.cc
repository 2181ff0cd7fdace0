// SPDX-License-Identifier: Apache-2.0
#include "catalogue/snapshot.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "beamline/status.h"
#include "catalogue/snapshot_check.h"

namespace beamline::catalogue {

CatalogueSnapshot::CatalogueSnapshot(SnapshotContents contents)
    : contents_(std::move(contents)), trie_(contents_.trie.view()), leaf_starts_(IntervalStarts(contents_.leaf_items)) {
  static std::atomic<uint64_t> last_id{0};
  trie_.id = ++last_id;
  for (int level = 0; level + 1 < levels(); ++level) {
    child_starts_.push_back(IntervalStarts(contents_.trie.levels[level].offsets));
  }
}

absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> CatalogueSnapshot::Create(SnapshotContents contents) {
  BEAMLINE_RETURN_IF_ERROR(CheckSnapshotContents(contents));
  std::shared_ptr<CatalogueSnapshot> snapshot(new CatalogueSnapshot(std::move(contents)));
  BEAMLINE_ASSIGN_OR_RETURN(snapshot->index_, ItemIndex::Build(snapshot->contents_.items.item_id));
  return snapshot;
}

std::optional<Sid> CatalogueSnapshot::Encode(ItemId item) const {
  const std::optional<uint32_t> position = FindPosition(item);
  if (!position) return std::nullopt;
  return SidOfLeaf(LeafOf(*position));
}

std::vector<ItemId> CatalogueSnapshot::Resolve(const Sid& sid) const {
  if (sid.levels() != levels()) return {};
  const std::optional<uint32_t> leaf = contents_.trie.Find(sid);
  if (!leaf) return {};
  const ItemRange range = LeafItems(*leaf);
  return {contents_.items.item_id.begin() + range.begin, contents_.items.item_id.begin() + range.end};
}

std::optional<CatalogueItem> CatalogueSnapshot::GetItem(ItemId item) const {
  const std::optional<uint32_t> position = FindPosition(item);
  if (!position) return std::nullopt;
  CatalogueItem result;
  result.item = item;
  result.sid = SidOfLeaf(LeafOf(*position));
  result.attributes.author = author(*position);
  result.attributes.duration_ms = duration_ms(*position);
  result.attributes.created_ms = created_ms(*position);
  result.attributes.relevance = relevance(*position);
  result.attributes.title = std::string(title(*position));
  for (uint32_t tag : tag_ids(*position)) result.attributes.tags.push_back(contents_.tags[tag]);
  return result;
}

ItemRange CatalogueSnapshot::NodeItems(int level, uint32_t node) const {
  uint32_t begin = node;
  uint32_t end = node + 1;
  for (; level + 1 < levels(); ++level) {
    begin = trie_.level[level].offsets[begin];
    end = trie_.level[level].offsets[end];
  }
  return {contents_.leaf_items[begin], contents_.leaf_items[end]};
}

Sid CatalogueSnapshot::SidOfLeaf(uint32_t leaf) const {
  Code codes[kMaxLevels];
  uint32_t node = leaf;
  for (int level = levels() - 1; level >= 0; --level) {
    codes[level] = trie_.level[level].codes[node];
    if (level > 0) node = ParentOf(level, node);
  }
  return Sid(absl::MakeConstSpan(codes, levels()));
}

uint64_t CatalogueSnapshot::bytes() const {
  uint64_t total = contents_.trie.bytes() + contents_.leaf_items.size() * sizeof(uint32_t) + contents_.items.bytes() +
                   leaf_starts_.bytes() + index_.bytes();
  for (const RankBitmap& starts : child_starts_) total += starts.bytes();
  return total;
}

}  // namespace beamline::catalogue
