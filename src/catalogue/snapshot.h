// SPDX-License-Identifier: Apache-2.0
//
// One immutable version of the catalogue: the trie of its SIDs, the items under each SID, and their attributes. Items
// have positions 0..num_items-1 in SID order, inside one SID by relevance (largest first) and then id, so a trie node
// is an interval of positions at every level: eligibility is built on that. Made by SnapshotBuilder or LoadSnapshot,
// held by shared_ptr: whoever uses one keeps it alive, and a batch keeps the one it started with. Thread-safe.
//
// One SID may hold many items; one item has one SID. Limits: 1..2^32-2 items, kMaxLevels levels of kMaxLevelSize codes.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "beamline/catalogue.h"
#include "beamline/kernels/trie_view.h"
#include "catalogue/item_columns.h"
#include "catalogue/item_index.h"
#include "catalogue/item_trie.h"
#include "catalogue/rank_bitmap.h"
#include "catalogue/tag_dictionary.h"

namespace beamline::catalogue {

// Everything a snapshot stores; the rest is derived from it.
struct SnapshotContents {
  std::string version;
  std::string codebook_fingerprint;
  std::vector<uint32_t> level_sizes;
  ItemTrie trie;
  std::vector<uint32_t> leaf_items;  // [leaves + 1] into positions: leaf l holds [leaf_items[l], leaf_items[l + 1])
  ItemColumns items;
  TagDictionary tags;  // in (key, value) order
};

// Positions [begin, end) of a node's items.
struct ItemRange {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t size() const { return end - begin; }
};

class CatalogueSnapshot final : public Catalogue {
 public:
  // Checks all of `contents` (structure, order, limits, unique ids), then builds the indexes. INVALID_ARGUMENT says
  // what is wrong where.
  static absl::StatusOr<std::shared_ptr<const CatalogueSnapshot>> Create(SnapshotContents contents);

  const std::string& version() const override { return contents_.version; }
  const std::string& codebook_fingerprint() const override { return contents_.codebook_fingerprint; }
  int levels() const override { return static_cast<int>(contents_.level_sizes.size()); }
  std::vector<uint32_t> level_sizes() const override { return contents_.level_sizes; }
  uint64_t num_items() const override { return contents_.items.size(); }
  uint64_t num_sids() const override { return contents_.trie.num_leaves(); }
  std::optional<Sid> Encode(ItemId item) const override;
  std::vector<ItemId> Resolve(const Sid& sid) const override;
  std::optional<CatalogueItem> GetItem(ItemId item) const override;

  const kernels::TrieView& trie() const { return trie_; }
  uint32_t num_nodes(int level) const { return contents_.trie.num_nodes(level); }
  uint32_t num_leaves() const { return contents_.trie.num_leaves(); }

  // Positions.
  std::optional<uint32_t> FindPosition(ItemId item) const { return index_.Find(item); }
  std::vector<uint32_t> FindPositions(absl::Span<const ItemId> items) const { return index_.FindAll(items); }
  uint32_t LeafOf(uint32_t position) const { return IntervalOf(leaf_starts_, position); }
  uint32_t ParentOf(int level, uint32_t node) const {
    return IntervalOf(child_starts_[level - 1], node);
  }  // level >= 1
  ItemRange LeafItems(uint32_t leaf) const { return {contents_.leaf_items[leaf], contents_.leaf_items[leaf + 1]}; }
  ItemRange NodeItems(int level, uint32_t node) const;
  Sid SidOfLeaf(uint32_t leaf) const;

  // Attributes by position.
  ItemId item_id(uint32_t position) const { return contents_.items.item_id[position]; }
  uint64_t author(uint32_t position) const { return contents_.items.author[position]; }
  int64_t duration_ms(uint32_t position) const { return contents_.items.duration_ms[position]; }
  int64_t created_ms(uint32_t position) const { return contents_.items.created_ms[position]; }
  float relevance(uint32_t position) const { return contents_.items.relevance[position]; }
  absl::string_view title(uint32_t position) const { return contents_.items.title(position); }
  absl::Span<const uint32_t> tag_ids(uint32_t position) const { return contents_.items.tag_ids(position); }
  const TagDictionary& tags() const { return contents_.tags; }

  const SnapshotContents& contents() const { return contents_; }
  uint64_t bytes() const;  // of memory, about

 private:
  explicit CatalogueSnapshot(SnapshotContents contents);

  const SnapshotContents contents_;
  kernels::TrieView trie_;
  RankBitmap leaf_starts_;                // over positions: where each leaf's items begin
  std::vector<RankBitmap> child_starts_;  // [levels - 1] over nodes of level t + 1: where each parent's children begin
  ItemIndex index_;
};

}  // namespace beamline::catalogue
