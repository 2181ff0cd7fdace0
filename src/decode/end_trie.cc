// SPDX-License-Identifier: Apache-2.0
#include "decode/end_trie.h"

#include <algorithm>
#include <numeric>

namespace beamline::decode {

void EndTrie::Reserve(int leaves) {
  leaves_.reserve(leaves);
  rank_.reserve(leaves);
  offsets_.reserve(leaves + 1);
  codes_.reserve(leaves);
}

void EndTrie::Bind(const kernels::BeamSlots& leaves) {
  leaves_.assign(leaves.node, leaves.node + leaves.count);
  rank_.resize(leaves.count);
  offsets_.resize(leaves.count + 1);
  codes_.assign(leaves.count, 0);
  beams_ = leaves;
  std::sort(leaves_.begin(), leaves_.end());
  for (int row = 0; row < leaves.count; ++row) {
    const auto found = std::lower_bound(leaves_.begin(), leaves_.end(), leaves.node[row]);
    rank_[row] = static_cast<uint32_t>(found - leaves_.begin());
  }
  std::iota(offsets_.begin(), offsets_.end(), 0u);
  const uint32_t count = static_cast<uint32_t>(leaves.count);
  constraint_.trie.levels = 2;
  constraint_.trie.level[0] = {.codes = codes_.data(), .offsets = offsets_.data(), .num_nodes = count};
  constraint_.trie.level[kEndLevel] = {.codes = codes_.data(), .offsets = nullptr, .num_nodes = count};
  constraint_.snapshot_trie = constraint_.trie;
  beams_.node = rank_.data();
}

void EndTrie::RestoreLeaves(kernels::BeamSlots& selected) const {
  for (int row = 0; row < selected.count; ++row) selected.node[row] = leaves_[selected.node[row]];
}

}  // namespace beamline::decode
