// SPDX-License-Identifier: Apache-2.0
//
// A batch of random requests and one step's inputs and outputs of BeamSelectBatch as vectors: the tests run it on the
// host through beam_select_core.h and on the device through BeamSelectCuda, and compare both with BeamSelectCpu.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "beamline/kernels/beam_select_cuda.h"
#include "cpu/row_ops.h"
#include "kernels/trie_fixture.h"

namespace beamline::kernels {

// One request: a snapshot's trie, perhaps an allow-list trie of some of its leaves, and random rules and dead nodes.
class RandomRequest {
 public:
  RandomRequest(std::mt19937& random, int levels, int vocab, int leaves)
      : snapshot_(RandomTuples(random, levels, vocab, leaves), levels) {
    constraint.trie = constraint.snapshot_trie = snapshot_.view();
    if (random() % 4 == 0) UseAllowList(random, levels);
    for (int level = 0; level < levels; ++level) AddEligibility(random, level);
    rule = random() % 2 == 0 ? ScoreRule::kFull : ScoreRule::kLegal;
  }

  ConstraintView constraint;
  ScoreRule rule = ScoreRule::kFull;
  std::vector<int> widths;  // per level

 private:
  void UseAllowList(std::mt19937& random, int levels) {
    std::set<Tuple> allowed;
    for (const Tuple& tuple : snapshot_.prefixes.back()) {
      if (random() % 2 == 0 || allowed.empty()) allowed.insert(tuple);
    }
    own_ = std::make_unique<TestTrie>(allowed, levels);
    constraint.trie = own_->view();
    for (int level = 0; level < levels; ++level) {
      for (const Tuple& prefix : own_->prefixes[level]) map_[level].push_back(snapshot_.Find(level, prefix));
      constraint.snapshot_node[level] = map_[level].data();
    }
  }

  void AddEligibility(std::mt19937& random, int level) {
    const uint32_t nodes = constraint.trie.level[level].num_nodes;
    bits_[level].assign((nodes + 63) / 64, 0);
    const bool with_rule = random() % 2 == 0, with_deny = random() % 2 == 0;
    for (uint32_t node = 0; node < nodes; ++node) {
      if (random() % 4 != 0) bits_[level][node / 64] |= uint64_t{1} << (node % 64);
      if (with_deny && random() % 5 == 0) dead_[level].push_back(node);
    }
    constraint.eligibility[level] = {with_rule ? bits_[level].data() : nullptr, dead_[level].data(),
                                     static_cast<uint32_t>(dead_[level].size())};
  }

  TestTrie snapshot_;
  std::unique_ptr<TestTrie> own_;
  std::vector<uint32_t> map_[kMaxTrieLevels];
  std::vector<uint64_t> bits_[kMaxTrieLevels];
  std::vector<uint32_t> dead_[kMaxTrieLevels];
};

// A trie of two levels, a node of the first for each stride, with children at every stride-th code: more candidates
// than a buffer holds.
class WideTrie {
 public:
  WideTrie(const std::vector<int>& strides, int vocab) {
    for (size_t parent = 0; parent < strides.size(); ++parent) {
      roots_.push_back(static_cast<uint16_t>(parent));
      const int stride = strides[parent];
      for (int code = static_cast<int>(parent) % stride; code < vocab; code += stride) {
        codes_.push_back(static_cast<uint16_t>(code));
      }
      offsets_.push_back(static_cast<uint32_t>(codes_.size()));
    }
    constraint.trie.levels = 2;
    constraint.trie.level[0] = {roots_.data(), offsets_.data(), static_cast<uint32_t>(strides.size())};
    constraint.trie.level[1] = {codes_.data(), nullptr, static_cast<uint32_t>(codes_.size())};
    constraint.snapshot_trie = constraint.trie;
  }
  WideTrie(int parents, int vocab, int stride) : WideTrie(std::vector<int>(parents, stride), vocab) {}
  WideTrie(const WideTrie&) = delete;
  WideTrie& operator=(const WideTrie&) = delete;

  ConstraintView constraint;

 private:
  std::vector<uint16_t> roots_, codes_;
  std::vector<uint32_t> offsets_ = {0};
};

// Beam slots of a batch as vectors.
struct SlotVectors {
  SlotVectors() = default;
  SlotVectors(int requests, int rows)
      : node(rows, 0xdeadbeef),
        score(rows, 77),
        parent(rows, -7),
        code(rows, 0xdead),
        log_prob(rows, 77),
        count(requests, -1) {}

  DeviceBeams view() { return {node.data(), score.data(), parent.data(), code.data(), log_prob.data(), count.data()}; }

  std::vector<uint32_t> node;
  std::vector<float> score;
  std::vector<int32_t> parent;
  std::vector<uint16_t> code;
  std::vector<float> log_prob;
  std::vector<int32_t> count;
};

// The requests of a batch and the state of their search after some steps.
struct SelectBatch {
  std::vector<ConstraintView> constraints;
  std::vector<ScoreRule> rules;
  std::vector<std::vector<int>> widths;  // per request, per level
  std::vector<int32_t> row_begin = {0};
  int rows = 0;  // of slots; at least row_begin.back()
  int vocab = 0;
  int first_code = 0;

  int level = 0;  // of the step below
  std::vector<float> logits;
  bool with_parts = false;  // as a head gives them
  std::vector<RowPart> parts;
  std::vector<int32_t> width;
  SlotVectors in, out;
  std::vector<int32_t> lineage_in, lineage_out;
  std::vector<int32_t> error;

  int requests() const { return static_cast<int>(constraints.size()); }

  void Add(const ConstraintView& constraint, ScoreRule rule, std::vector<int> request_widths, int spare_slots) {
    constraints.push_back(constraint);
    rules.push_back(rule);
    const int widest = *std::max_element(request_widths.begin(), request_widths.end());
    row_begin.push_back(row_begin.back() + std::max(1, widest) + spare_slots);
    rows = row_begin.back();
    widths.push_back(std::move(request_widths));
    error.push_back(-1);
  }

  // Room for the outputs of step `next`, whose inputs are the outputs before.
  void BeginStep(int next) {
    level = next;
    in = std::move(out);
    out = SlotVectors(requests(), rows);
    lineage_in = std::move(lineage_out);
    lineage_out.assign(static_cast<size_t>(level + 1) * rows, -7);
    width.clear();
    for (const std::vector<int>& request : widths) width.push_back(request[level]);
  }

  int logit_rows() const { return level == 0 ? requests() : rows; }

  // With host pointers; `workspace` stays to be set.
  BeamSelectBatch view() {
    BeamSelectBatch batch;
    if (with_parts) batch.parts = MakeParts();
    batch.logits = logits.data();
    batch.ld = batch.vocab = vocab;
    batch.first_code = first_code;
    batch.level = level;
    batch.requests = requests();
    batch.rows = rows;
    batch.row_begin = row_begin.data();
    batch.width = width.data();
    batch.rule = rules.data();
    batch.constraint = constraints.data();
    batch.in = in.view();
    batch.out = out.view();
    batch.lineage_in = lineage_in.data();
    batch.lineage_out = lineage_out.data();
    batch.error = error.data();
    return batch;
  }

  const RowPart* MakeParts() {
    const int count = RowParts(vocab), all = static_cast<int>(logits.size()) / vocab;
    parts.clear();
    for (int row = 0; row < all; ++row) {
      for (int part = 0; part < count; ++part) {
        const float* first = &logits[static_cast<size_t>(row) * vocab + part * kPartColumns];
        const int columns = std::min(kPartColumns, vocab - part * kPartColumns);
        float max = -INFINITY;
        const bool finite = BestRowOps().scan(first, columns, &max);
        std::vector<float> scratch(columns);
        const double sum = max == -INFINITY ? 0 : BestRowOps().sum_exp(first, columns, max, scratch.data());
        parts.push_back({max, finite ? static_cast<float>(sum) : NAN});
      }
    }
    return parts.data();
  }

  // What BeamSelectCpu makes of request `b`.
  StepOutput Expected(int b) const {
    StepInput input{.constraint = &constraints[b],
                    .level = level,
                    .vocab = vocab,
                    .first_code = first_code,
                    .width = width[b],
                    .rule = rules[b]};
    const int32_t begin = row_begin[b];
    const int parents = level == 0 ? 1 : in.count[b];
    const float* first = logits.data() + static_cast<size_t>(level == 0 ? b : begin) * vocab;
    input.logits.assign(first, first + static_cast<size_t>(std::max(1, parents)) * vocab);
    for (int i = 0; level > 0 && i < parents; ++i) {
      input.parents.push_back({.node = in.node[begin + i], .score = in.score[begin + i]});
    }
    if (parents == 0) return {};  // no block looks at the request
    if (width[b] > row_begin[b + 1] - begin) return {SelectError::kInvalidArgument, {}};
    return Select(input);
  }

  std::vector<Beam> Beams(int b) const {
    std::vector<Beam> beams;
    for (int i = row_begin[b]; i < row_begin[b] + out.count[b]; ++i) {
      beams.push_back({out.node[i], out.score[i], out.parent[i], out.code[i], out.log_prob[i]});
    }
    return beams;
  }

  // A description of the first thing that is wrong with the step's outputs, or an empty string. `failed` remembers the
  // requests' errors from step to step.
  std::string Wrong(std::vector<SelectError>* failed) const {
    failed->resize(requests(), SelectError::kOk);
    for (int b = 0; b < requests(); ++b) {
      const std::string name = "request " + std::to_string(b) + " level " + std::to_string(level) + ": ";
      StepOutput expected;
      if ((*failed)[b] == SelectError::kOk) expected = Expected(b);
      if ((*failed)[b] == SelectError::kOk) (*failed)[b] = expected.error;
      if (error[b] != static_cast<int32_t>((*failed)[b])) return name + "error " + std::to_string(error[b]);
      if (out.count[b] != static_cast<int32_t>(expected.beams.size())) {
        return name + std::to_string(out.count[b]) + " beams, not " + std::to_string(expected.beams.size());
      }
      if (Beams(b) != expected.beams) return name + "beams differ";
      for (int slot = row_begin[b]; slot < row_begin[b + 1]; ++slot) {
        const bool kept = slot < row_begin[b] + out.count[b];
        if (!kept && (out.node[slot] != 0 || out.parent[slot] != 0 || out.code[slot] != 0 ||
                      out.score[slot] != -INFINITY || out.log_prob[slot] != 0)) {
          return name + "slot " + std::to_string(slot) + " is not padded";
        }
        for (int step = 0; step <= level; ++step) {
          const int32_t parent = out.parent[slot];
          const int32_t ancestor =
              step == level ? parent : lineage_in[static_cast<size_t>(step) * rows + row_begin[b] + parent];
          if (lineage_out[static_cast<size_t>(step) * rows + slot] != ancestor) return name + "lineage";
        }
      }
    }
    for (int slot = row_begin.back(); slot < rows; ++slot) {
      if (out.node[slot] != 0xdeadbeef) return "a slot of no request was written";
    }
    return "";
  }
};

// A batch of random requests over tries of few codes, so that everything happens: ties, dead ends, exhausted beams,
// rows that fail, widths of 0 and widths beyond the slots.
struct RandomBatch {
  RandomBatch(uint32_t seed, int max_vocab, int max_leaves, int max_width) : random(seed) {
    levels = 1 + static_cast<int>(random() % 4);
    const int codes = 1 + static_cast<int>(random() % max_vocab);
    batch.first_code = random() % 3 == 0 ? static_cast<int>(random() % 5) : 0;
    batch.vocab = batch.first_code + codes + (random() % 4 == 0 ? 3 : 0) - (random() % 64 == 0 ? 1 : 0);
    batch.vocab = std::max(batch.vocab, batch.first_code + 1);
    const int count = 1 + static_cast<int>(random() % 5);
    for (int i = 0; i < count; ++i) {
      requests.push_back(std::make_unique<RandomRequest>(random, levels, codes, 1 + random() % max_leaves));
      std::vector<int> widths;
      for (int level = 0; level < levels; ++level) widths.push_back(1 + static_cast<int>(random() % max_width));
      if (random() % 16 == 0) widths[random() % levels] = 0;
      batch.Add(requests.back()->constraint, requests.back()->rule, widths, static_cast<int>(random() % 3));
      if (random() % 32 == 0) batch.widths.back()[random() % levels] = max_width + 5;
    }
    batch.rows += static_cast<int>(random() % 3);
  }

  void BeginStep(int level) {
    batch.BeginStep(level);
    batch.logits.resize(static_cast<size_t>(batch.logit_rows()) * batch.vocab);
    const int values = random() % 3 == 0 ? 1 : 7;
    for (float& x : batch.logits) x = 0.5f * static_cast<float>(static_cast<int>(random() % values) - 3);
    if (random() % 3 == 0) {
      std::normal_distribution<float> normal(0, 4);
      for (float& x : batch.logits) x = normal(random);
    }
    if (random() % 4 == 0) At() = -0.0f;
    if (random() % 4 == 0) At() = -INFINITY;
    if (random() % 16 == 0) At() = NAN;
    if (random() % 16 == 0) At() = INFINITY;
  }

  float& At() { return batch.logits[random() % batch.logits.size()]; }

  std::mt19937 random;
  int levels = 0;
  std::vector<std::unique_ptr<RandomRequest>> requests;
  SelectBatch batch;
};

}  // namespace beamline::kernels
