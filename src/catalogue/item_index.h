// SPDX-License-Identifier: Apache-2.0
//
// Item id -> position: a hash table of positions alone (4 bytes a slot, at most 2/3 full), whose keys are looked up in
// the id column it was built over. Two cache misses a lookup, and FindAll overlaps those of many: a deny list of
// thousands in 10^7 items costs well under a millisecond. Immutable; thread-safe; the column must outlive it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "beamline/types.h"

namespace beamline::catalogue {

inline constexpr uint32_t kNoPosition = 0xffffffff;

class ItemIndex {
 public:
  ItemIndex() = default;
  // INVALID_ARGUMENT names an id that occurs twice.
  static absl::StatusOr<ItemIndex> Build(absl::Span<const ItemId> ids);

  std::optional<uint32_t> Find(ItemId id) const;
  // positions[i] of ids[i], kNoPosition for unknown ones.
  std::vector<uint32_t> FindAll(absl::Span<const ItemId> ids) const;
  uint64_t bytes() const { return slots_.size() * sizeof(uint32_t); }

 private:
  uint64_t Slot(ItemId id) const;

  absl::Span<const ItemId> ids_;
  std::vector<uint32_t> slots_;
  uint64_t mask_ = 0;
};

}  // namespace beamline::catalogue
