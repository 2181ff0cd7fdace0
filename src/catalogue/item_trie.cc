// SPDX-License-Identifier: Apache-2.0
#include "catalogue/item_trie.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "beamline/kernels/constraint.h"

namespace beamline::catalogue {
namespace {

// First level at which two keys differ; `levels` when they are equal.
int FirstDifference(const SidKey& a, const SidKey& b, int levels) {
  int level = 0;
  while (level < levels && a.code(level) == b.code(level)) ++level;
  return level;
}

absl::Status CheckOffsets(int level, absl::Span<const uint32_t> offsets, uint32_t nodes, uint32_t next_nodes) {
  const auto error = [level](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("trie level ", level, ": ", what...));
  };
  if (offsets.size() != uint64_t{nodes} + 1) {
    return error("has ", nodes, " nodes but ", offsets.size(), " offsets, must be ", uint64_t{nodes} + 1);
  }
  if (offsets.front() != 0) return error("the first offset is ", offsets.front(), ", must be 0");
  for (uint32_t node = 0; node < nodes; ++node) {
    if (offsets[node] >= offsets[node + 1]) {
      return error("offsets do not ascend at node ", node, " (", offsets[node], ", then ", offsets[node + 1], ")");
    }
  }
  if (offsets.back() != next_nodes) {
    return error("the last offset is ", offsets.back(), " but the next level has ", next_nodes, " nodes");
  }
  return absl::OkStatus();
}

absl::Status CheckCodes(const ItemTrie& trie, int level, uint32_t level_size) {
  const std::vector<uint16_t>& codes = trie.levels[level].codes;
  const kernels::TrieView view = trie.view();
  const uint32_t parents = level == 0 ? 1 : trie.num_nodes(level - 1);
  for (uint32_t parent = 0; parent < parents; ++parent) {
    const kernels::NodeRange range = kernels::Children(view, level, parent);
    for (uint32_t node = range.begin; node < range.end; ++node) {
      if (codes[node] >= level_size) {
        return absl::InvalidArgumentError(absl::StrCat("trie level ", level, ": node ", node, " has code ", codes[node],
                                                       ", but the level has ", level_size, " codes"));
      }
      if (node > range.begin && codes[node - 1] >= codes[node]) {
        return absl::InvalidArgumentError(
            absl::StrCat("trie level ", level, ": codes do not ascend at node ", node, " under parent ", parent));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

ItemTrie ItemTrie::FromSorted(int levels, uint64_t count, absl::FunctionRef<SidKey(uint64_t)> key) {
  std::array<uint64_t, kMaxLevels> nodes{};
  SidKey previous;
  for (uint64_t i = 0; i < count; ++i) {
    const SidKey current = key(i);
    for (int level = i == 0 ? 0 : FirstDifference(previous, current, levels); level < levels; ++level) ++nodes[level];
    previous = current;
  }
  ItemTrie trie;
  trie.levels.resize(levels);
  for (int level = 0; level < levels; ++level) {
    trie.levels[level].codes.reserve(nodes[level]);
    if (level + 1 < levels) trie.levels[level].offsets.reserve(nodes[level] + 1);
  }
  for (uint64_t i = 0; i < count; ++i) {
    const SidKey current = key(i);
    for (int level = i == 0 ? 0 : FirstDifference(previous, current, levels); level < levels; ++level) {
      trie.levels[level].codes.push_back(current.code(level));
      if (level + 1 < levels) {
        trie.levels[level].offsets.push_back(static_cast<uint32_t>(trie.levels[level + 1].codes.size()));
      }
    }
    previous = current;
  }
  for (int level = 0; level + 1 < levels; ++level) trie.levels[level].offsets.push_back(trie.num_nodes(level + 1));
  return trie;
}

absl::Status ItemTrie::Check(absl::Span<const uint32_t> level_sizes) const {
  if (levels.empty() || levels.size() > kMaxLevels || levels.size() != level_sizes.size()) {
    return absl::InvalidArgumentError(absl::StrCat("trie: has ", levels.size(), " levels, the codebook ",
                                                   level_sizes.size(), "; must be equal and 1 to ", kMaxLevels));
  }
  const int count = static_cast<int>(levels.size());
  for (int level = 0; level < count; ++level) {
    if (levels[level].codes.empty() || levels[level].codes.size() > 0xffffffffull - 1) {
      return absl::InvalidArgumentError(absl::StrCat("trie level ", level, ": has ", levels[level].codes.size(),
                                                     " nodes, must be 1 to ", 0xffffffffull - 1));
    }
  }
  for (int level = 0; level + 1 < count; ++level) {
    if (absl::Status status = CheckOffsets(level, levels[level].offsets, num_nodes(level), num_nodes(level + 1));
        !status.ok()) {
      return status;
    }
  }
  for (int level = 0; level < count; ++level) {
    if (absl::Status status = CheckCodes(*this, level, level_sizes[level]); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::optional<uint32_t> ItemTrie::Find(const Sid& prefix) const {
  if (prefix.empty() || prefix.levels() > static_cast<int>(levels.size())) return std::nullopt;
  const kernels::TrieView trie = view();
  uint32_t node = 0;
  for (int level = 0; level < prefix.levels(); ++level) {
    const kernels::NodeRange range = kernels::Children(trie, level, node);
    const uint16_t* begin = trie.level[level].codes + range.begin;
    const uint16_t* end = trie.level[level].codes + range.end;
    const uint16_t* found = std::lower_bound(begin, end, prefix[level]);
    if (found == end || *found != prefix[level]) return std::nullopt;
    node = range.begin + static_cast<uint32_t>(found - begin);
  }
  return node;
}

kernels::TrieView ItemTrie::view() const {
  kernels::TrieView trie;
  trie.levels = static_cast<int>(levels.size());
  for (int level = 0; level < trie.levels; ++level) {
    trie.level[level].codes = levels[level].codes.data();
    trie.level[level].offsets = levels[level].offsets.empty() ? nullptr : levels[level].offsets.data();
    trie.level[level].num_nodes = num_nodes(level);
  }
  return trie;
}

uint64_t ItemTrie::bytes() const {
  uint64_t total = 0;
  for (const ItemTrieLevel& level : levels) {
    total += level.codes.size() * sizeof(uint16_t) + level.offsets.size() * sizeof(uint32_t);
  }
  return total;
}

RankBitmap IntervalStarts(absl::Span<const uint32_t> offsets) {
  RankBitmap starts(offsets.back());
  for (uint32_t begin : offsets.first(offsets.size() - 1)) starts.Set(begin);
  starts.BuildRanks();
  return starts;
}

}  // namespace beamline::catalogue
