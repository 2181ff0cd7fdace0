// SPDX-License-Identifier: Apache-2.0
//
// How a search walks a ConstraintView: the children of a node, and which of them are alive. Pure functions over plain
// views, shared by the CPU and the CUDA selection. Children of a node are contiguous, so a parent needs one search in
// the list of dead nodes (DeadAmong) and its children look only at what was found there. Levels are 0-based and name
// the level of the *children*; the parent of level 0 is the root and its id is ignored.
#pragma once

#include <cstdint>

#include "beamline/kernels/host_device.h"
#include "beamline/kernels/trie_view.h"

namespace beamline::kernels {

// Node ids [begin, end) of one level.
struct NodeRange {
  uint32_t begin = 0;
  uint32_t end = 0;
};

// REQUIRES: 0 <= level < trie.levels and, for level > 0, parent < trie.level[level - 1].num_nodes.
BEAMLINE_HD inline NodeRange Children(const TrieView& trie, int level, uint32_t parent) {
  if (level == 0) return {0, trie.level[0].num_nodes};
  const uint32_t* offsets = trie.level[level - 1].offsets;
  return {offsets[parent], offsets[parent + 1]};
}

// The snapshot's id of a node of the request's trie: the same, unless the request searches an allow-list trie.
BEAMLINE_HD inline uint32_t SnapshotNode(const ConstraintView& constraint, int level, uint32_t node) {
  const uint32_t* map = constraint.snapshot_node[level];
  return map == nullptr ? node : map[node];
}

// The parent's children in the snapshot: what the `legal` score rule sums over.
BEAMLINE_HD inline NodeRange SnapshotChildren(const ConstraintView& constraint, int level, uint32_t parent) {
  return Children(constraint.snapshot_trie, level, level == 0 ? 0 : SnapshotNode(constraint, level - 1, parent));
}

// Position of the first entry that is not less than `value`; `count` when there is none.
BEAMLINE_HD inline uint32_t LowerBound(const uint32_t* sorted, uint32_t count, uint32_t value) {
  uint32_t first = 0;
  while (count > 0) {
    const uint32_t half = count / 2;
    if (sorted[first + half] < value) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}

// The dead nodes among one parent's children, ascending.
struct DeadSlice {
  const uint32_t* nodes = nullptr;
  uint32_t count = 0;
};

BEAMLINE_HD inline DeadSlice DeadAmong(const EligibilityLevelView& eligibility, NodeRange children) {
  const uint32_t begin = LowerBound(eligibility.dead_nodes, eligibility.num_dead, children.begin);
  const uint32_t end = begin + LowerBound(eligibility.dead_nodes + begin, eligibility.num_dead - begin, children.end);
  return {eligibility.dead_nodes + begin, end - begin};
}

BEAMLINE_HD inline bool PassesRule(const EligibilityLevelView& eligibility, uint32_t node) {
  return eligibility.rule_bits == nullptr || ((eligibility.rule_bits[node >> 6] >> (node & 63)) & 1) != 0;
}

// Whether an eligible leaf lies under `node`. REQUIRES: `dead` came from DeadAmong for a range that holds `node`.
BEAMLINE_HD inline bool IsAlive(const EligibilityLevelView& eligibility, DeadSlice dead, uint32_t node) {
  if (!PassesRule(eligibility, node)) return false;
  const uint32_t at = LowerBound(dead.nodes, dead.count, node);
  return at == dead.count || dead.nodes[at] != node;
}

}  // namespace beamline::kernels
