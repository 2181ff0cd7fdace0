// SPDX-License-Identifier: Apache-2.0
//
// Tries and selections for the kernel tests: a trie that owns its arrays, made from plain code tuples the slow way, and
// BeamSelectCpu wrapped so that beams are values.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "beamline/kernels/beam_select.h"

namespace beamline::kernels {

using Tuple = std::vector<uint16_t>;

// Nodes of level t are the distinct prefixes of length t + 1 in order: found by std::set, independent of ItemTrie.
struct TestTrie {
  explicit TestTrie(const std::set<Tuple>& tuples, int levels) {
    prefixes.resize(levels);
    codes.resize(levels);
    offsets.resize(levels);
    for (int level = 0; level < levels; ++level) {
      std::set<Tuple> distinct;
      for (const Tuple& tuple : tuples) distinct.insert(Tuple(tuple.begin(), tuple.begin() + level + 1));
      prefixes[level].assign(distinct.begin(), distinct.end());
      for (const Tuple& prefix : prefixes[level]) codes[level].push_back(prefix.back());
    }
    for (int level = 0; level + 1 < levels; ++level) {
      offsets[level].push_back(0);
      for (const Tuple& prefix : prefixes[level]) {
        uint32_t children = 0;
        for (const Tuple& child : prefixes[level + 1])
          children += std::equal(prefix.begin(), prefix.end(), child.begin());
        offsets[level].push_back(offsets[level].back() + children);
      }
    }
  }

  TrieView view() const {
    TrieView trie;
    trie.levels = static_cast<int>(codes.size());
    for (int level = 0; level < trie.levels; ++level) {
      trie.level[level] = {codes[level].data(), offsets[level].empty() ? nullptr : offsets[level].data(),
                           static_cast<uint32_t>(codes[level].size())};
    }
    return trie;
  }

  uint32_t Find(int level, const Tuple& prefix) const {
    return static_cast<uint32_t>(std::lower_bound(prefixes[level].begin(), prefixes[level].end(), prefix) -
                                 prefixes[level].begin());
  }

  std::vector<std::vector<Tuple>> prefixes;  // [levels][nodes]
  std::vector<std::vector<uint16_t>> codes;
  std::vector<std::vector<uint32_t>> offsets;
};

inline std::set<Tuple> RandomTuples(std::mt19937& random, int levels, int vocab, int count) {
  std::set<Tuple> tuples;
  for (int i = 0; i < count; ++i) {
    Tuple tuple(levels);
    for (uint16_t& code : tuple) code = static_cast<uint16_t>(random() % vocab);
    tuples.insert(tuple);
  }
  return tuples;
}

struct Beam {
  uint32_t node = 0;
  float score = 0;
  int32_t parent = 0;
  uint16_t code = 0;
  float log_prob = 0;
  friend bool operator==(const Beam&, const Beam&) = default;
};

struct StepInput {
  const ConstraintView* constraint = nullptr;
  int level = 0;
  int vocab = 0;
  int first_code = 0;
  int width = 0;
  ScoreRule rule = ScoreRule::kFull;
  std::vector<float> logits;  // [max(1, parents), vocab]
  std::vector<Beam> parents;  // empty at level 0
};

struct StepOutput {
  SelectError error = SelectError::kOk;
  std::vector<Beam> beams;
};

inline StepOutput Select(const StepInput& input) {
  std::vector<uint32_t> in_node, node(input.width, 0xdeadbeef);
  std::vector<float> in_score, score(input.width), log_prob(input.width);
  std::vector<int32_t> parent(input.width);
  std::vector<uint16_t> code(input.width);
  for (const Beam& beam : input.parents) {
    in_node.push_back(beam.node);
    in_score.push_back(beam.score);
  }
  const BeamSlots in{.node = in_node.data(), .score = in_score.data(), .count = static_cast<int32_t>(in_node.size())};
  BeamSlots out{node.data(), score.data(), parent.data(), code.data(), log_prob.data(), 77};
  StepOutput result;
  result.error = BeamSelectCpu({.logits = input.logits.data(),
                                .ld = input.vocab,
                                .vocab = input.vocab,
                                .first_code = input.first_code,
                                .level = input.level,
                                .width = input.width,
                                .rule = input.rule,
                                .constraint = input.constraint,
                                .in = input.level == 0 ? nullptr : &in,
                                .out = &out});
  for (int32_t i = 0; i < out.count; ++i) {
    result.beams.push_back({node[i], score[i], parent[i], code[i], log_prob[i]});
  }
  return result;
}

}  // namespace beamline::kernels
