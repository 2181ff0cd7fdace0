// SPDX-License-Identifier: Apache-2.0
//
// The step that scores an end token, as a selection like any other: the kept leaves, each with one child of code 0.
// Nodes are the leaves' ranks, so that equal scores stay in code order. Belongs to one search.
#pragma once

#include <cstdint>
#include <vector>

#include "beamline/kernels/beam_select.h"
#include "beamline/kernels/trie_view.h"

namespace beamline::decode {

class EndTrie {
 public:
  static constexpr int kEndLevel = 1;  // of this trie, whose level 0 are the leaves

  EndTrie() = default;
  // Makes room for so many leaves, so that binding them allocates nothing.
  void Reserve(int leaves);
  // `leaves` must outlive what is done with the trie.
  void Bind(const kernels::BeamSlots& leaves);
  EndTrie(EndTrie&&) = default;  // what the views point to moves along
  EndTrie& operator=(EndTrie&&) = default;

  const kernels::ConstraintView& constraint() const { return constraint_; }
  const kernels::BeamSlots& beams() const { return beams_; }  // the leaves, as nodes of level 0
  // Nodes of a selection from this trie become the leaves they stand for.
  void RestoreLeaves(kernels::BeamSlots& selected) const;

 private:
  std::vector<uint32_t> leaves_;   // ascending
  std::vector<uint32_t> rank_;     // of the leaf in each row
  std::vector<uint32_t> offsets_;  // of the leaves: one child each
  std::vector<uint16_t> codes_;    // all 0
  kernels::ConstraintView constraint_;
  kernels::BeamSlots beams_;
};

}  // namespace beamline::decode
