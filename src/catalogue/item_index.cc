// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_index.h"

#include <algorithm>
#include <bit>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace beamline::catalogue {
namespace {

// Lookups whose cache misses overlap.
constexpr size_t kBatch = 16;

}  // namespace

// Seeded by the process: ids are a stranger's, who could else choose such that share their slot.
uint64_t ItemIndex::Slot(ItemId id) const { return absl::HashOf(id) & mask_; }

absl::StatusOr<ItemIndex> ItemIndex::Build(absl::Span<const ItemId> ids) {
  ItemIndex index;
  index.ids_ = ids;
  const uint64_t slots = std::bit_ceil(ids.size() + ids.size() / 2 + 1);
  index.mask_ = slots - 1;
  index.slots_.assign(slots, kNoPosition);
  for (size_t begin = 0; begin < ids.size(); begin += kBatch) {
    const size_t end = std::min(begin + kBatch, ids.size());
    for (size_t i = begin; i < end; ++i) __builtin_prefetch(&index.slots_[index.Slot(ids[i])], 1);
    for (size_t i = begin; i < end; ++i) {
      uint64_t slot = index.Slot(ids[i]);
      for (; index.slots_[slot] != kNoPosition; slot = (slot + 1) & index.mask_) {
        if (ids[index.slots_[slot]] == ids[i]) {
          return absl::InvalidArgumentError(
              absl::StrCat("item ", ids[i], " occurs more than once; an item has one SID and one row"));
        }
      }
      index.slots_[slot] = static_cast<uint32_t>(i);
    }
  }
  return index;
}

std::optional<uint32_t> ItemIndex::Find(ItemId id) const {
  if (slots_.empty()) return std::nullopt;
  for (uint64_t slot = Slot(id); slots_[slot] != kNoPosition; slot = (slot + 1) & mask_) {
    if (ids_[slots_[slot]] == id) return slots_[slot];
  }
  return std::nullopt;
}

std::vector<uint32_t> ItemIndex::FindAll(absl::Span<const ItemId> ids) const {
  std::vector<uint32_t> positions(ids.size(), kNoPosition);
  if (slots_.empty()) return positions;
  for (size_t begin = 0; begin < ids.size(); begin += kBatch) {
    const size_t end = std::min(begin + kBatch, ids.size());
    for (size_t i = begin; i < end; ++i) __builtin_prefetch(&slots_[Slot(ids[i])]);
    for (size_t i = begin; i < end; ++i) {
      const uint32_t guess = slots_[Slot(ids[i])];
      if (guess != kNoPosition) __builtin_prefetch(&ids_[guess]);
    }
    for (size_t i = begin; i < end; ++i) positions[i] = Find(ids[i]).value_or(kNoPosition);
  }
  return positions;
}

}  // namespace beamline::catalogue
