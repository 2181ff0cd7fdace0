// SPDX-License-Identifier: Apache-2.0
//
// Plain views of the item trie and of one request's eligibility, for host and device code alike. They own nothing:
// pointers stay valid for as long as the catalogue snapshot and the compiled eligibility they came from.
//
// Level t (0-based) has num_nodes nodes, numbered in code order over the whole level: a node's id is its position in
// `codes`. Children of node n of level t are the nodes [offsets[n], offsets[n + 1]) of level t + 1. The root's children
// are all nodes of level 0. A leaf is a node of the last level; leaf ids number the snapshot's SIDs in order.
#pragma once

#include <cstdint>

namespace beamline::kernels {

inline constexpr int kMaxTrieLevels = 8;

struct TrieLevelView {
  const uint16_t* codes = nullptr;    // [num_nodes], ascending inside one parent
  const uint32_t* offsets = nullptr;  // [num_nodes + 1] into the next level; null at the last level
  uint32_t num_nodes = 0;
};

struct TrieView {
  TrieLevelView level[kMaxTrieLevels];
  int levels = 0;
  // Names the arrays' contents, in one process and for ever: what was copied to a device under this id is still true.
  // 0: nothing is promised.
  uint64_t id = 0;
};

// A node is alive iff its rule bit is set (or there is no rule) and it is not in the sorted list of dead nodes.
struct EligibilityLevelView {
  const uint64_t* rule_bits = nullptr;   // [ceil(num_nodes / 64)]; null: every node passes
  const uint32_t* dead_nodes = nullptr;  // [num_dead], ascending
  uint32_t num_dead = 0;
};

// What one request may reach: a trie (the snapshot's, or its own allow-list trie) and the eligibility inside it.
// Node ids of an allow-list trie are its own; `snapshot_node` maps them back (null: identity), so that order and
// answers are those of the snapshot.
struct ConstraintView {
  TrieView trie;
  EligibilityLevelView eligibility[kMaxTrieLevels];
  const uint32_t* snapshot_node[kMaxTrieLevels] = {};
  // For the `legal` score rule: the trie whose children are summed over. Same as `trie` unless there is an allow list.
  TrieView snapshot_trie;
};

}  // namespace beamline::kernels
