// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "beamline/kernels/beam_select_cuda.h"
#include "beamline/kernels/head_product_cuda.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "cuda_cases.h"

namespace beamline::kernels {
namespace {

using bench::Allocate;
using bench::Bench;
using bench::Upload;

// Items as their codes of 13 bits, ascending, and the trie of them: on the device, its prefixes on the host.
struct Catalogue {
  Catalogue(std::vector<uint64_t> sorted_sids, int64_t drawn) : items(drawn), sids(std::move(sorted_sids)) {
    std::vector<uint16_t> codes[kLevels];
    std::vector<uint32_t> offsets[kLevels];
    for (const uint64_t sid : sids) {
      for (int level = 0; level < kLevels; ++level) {
        const uint64_t prefix = sid >> (13 * (kLevels - 1 - level));
        if (!prefixes[level].empty() && prefix == prefixes[level].back()) continue;
        prefixes[level].push_back(prefix);
        if (level + 1 < kLevels) offsets[level].push_back(static_cast<uint32_t>(codes[level + 1].size()));
        codes[level].push_back(static_cast<uint16_t>(prefix & (kVocab - 1)));
      }
    }
    trie.levels = kLevels;
    for (int level = 0; level < kLevels; ++level) {
      if (level + 1 < kLevels) offsets[level].push_back(static_cast<uint32_t>(codes[level + 1].size()));
      trie.level[level] = {Upload(codes[level]), level + 1 < kLevels ? Upload(offsets[level]) : nullptr,
                           static_cast<uint32_t>(codes[level].size())};
    }
  }

  int64_t items;  // with those drawn twice
  std::vector<uint64_t> sids;
  std::vector<uint64_t> prefixes[kLevels];
  TrieView trie;
};

Catalogue RandomCatalogue(int64_t items) {
  std::mt19937_64 random(static_cast<uint64_t>(items));
  std::vector<uint64_t> sids(static_cast<size_t>(items));
  for (uint64_t& sid : sids) sid = random() & ((uint64_t{1} << 39) - 1);
  std::sort(sids.begin(), sids.end());
  sids.erase(std::unique(sids.begin(), sids.end()), sids.end());
  return {std::move(sids), items};
}

enum class Form { kFull, kLegal, kRuleBits, kDeadNodes, kAllowList, kParts };

const char* Name(Form form) {
  constexpr const char* kNames[] = {
      "", ", legal rule", ", rule bits", ", dead nodes", ", legal rule, allow list", ", from the head's parts"};
  return kNames[static_cast<int>(form)];
}

// Bits of a rule that three quarters of the nodes pass; or every 50th node dead; or an allow-list trie of a tenth.
ConstraintView Constraint(const Catalogue& catalogue, Form form) {
  ConstraintView constraint;
  constraint.trie = constraint.snapshot_trie = catalogue.trie;
  std::mt19937_64 random(1);
  if (form == Form::kAllowList) {
    std::vector<uint64_t> allowed;
    for (size_t i = 0; i < catalogue.sids.size(); i += 10) allowed.push_back(catalogue.sids[i]);
    const int64_t items = static_cast<int64_t>(allowed.size());
    const Catalogue own(std::move(allowed), items);
    constraint.trie = own.trie;
    for (int level = 0; level < kLevels; ++level) {
      const std::vector<uint64_t>& all = catalogue.prefixes[level];
      std::vector<uint32_t> of_snapshot;
      for (const uint64_t prefix : own.prefixes[level]) {
        of_snapshot.push_back(static_cast<uint32_t>(std::lower_bound(all.begin(), all.end(), prefix) - all.begin()));
      }
      constraint.snapshot_node[level] = Upload(of_snapshot);
    }
  }
  for (int level = 0; level < kLevels; ++level) {
    const uint32_t nodes = constraint.trie.level[level].num_nodes;
    EligibilityLevelView& eligibility = constraint.eligibility[level];
    if (form == Form::kRuleBits) {
      std::vector<uint64_t> bits((nodes + 63) / 64);
      for (uint64_t& word : bits) word = random() | random();
      eligibility.rule_bits = Upload(bits);
    } else if (form == Form::kDeadNodes) {
      std::vector<uint32_t> dead;
      for (uint32_t node = 0; node < nodes; node += 50) dead.push_back(node);
      eligibility.dead_nodes = Upload(dead);
      eligibility.num_dead = static_cast<uint32_t>(dead.size());
    }
  }
  return constraint;
}

DeviceBeams Slots(int requests, int rows) {
  return {static_cast<uint32_t*>(Allocate(rows * 4)), static_cast<float*>(Allocate(rows * 4)),
          static_cast<int32_t*>(Allocate(rows * 4)),  static_cast<uint16_t*>(Allocate(rows * 2)),
          static_cast<float*>(Allocate(rows * 4)),    static_cast<int32_t*>(Allocate(requests * 4))};
}

// The head's product, where the device has it, and what it gives: logits [8 * kBeam][kVocab] and their parts.
struct Head {
  const float* logits = nullptr;
  const RowPart* parts = nullptr;
};
Head RunHead(Bench& bench) {
  if (PrepareWarpgroups() != LaunchError::kOk) return {};
  constexpr int kRows = 8 * kBeam;
  HeadProductArgs args{.vocab = kVocab, .k = kWidth, .x_step = kWidth, .ld = kVocab};
  args.x = RandomMatrix(kRows, kWidth, DataType::kBFloat16);
  args.weight = RandomMatrix(kVocab, kWidth, DataType::kBFloat16);
  args.scale = 1 / std::sqrt(static_cast<float>(kWidth));
  args.logits = static_cast<float*>(EmptyMatrix(kRows, kVocab, DataType::kFloat32));
  args.parts = static_cast<RowPart*>(Allocate(static_cast<size_t>(kRows) * RowParts(kVocab) * sizeof(RowPart)));
  for (const int rows : {1, kBeam, kRows}) {
    args.rows = rows;
    bench.Run({"head_product", std::to_string(rows) + " rows",
               2.0 * kWidth * (rows + kVocab) +
                   static_cast<double>(rows) * (4.0 * kVocab + sizeof(RowPart) * RowParts(kVocab)),
               2.0 * rows * kVocab * kWidth,
               [args](cudaStream_t stream) { Require(HeadProductCuda(args, stream), "HeadProductCuda"); }});
  }
  Require(HeadProductCuda(args, nullptr), "HeadProductCuda");  // of all rows, also where its cases are not asked for
  return {args.logits, args.parts};
}

// Every logit of the rows, once, or their parts; of the parents' children, as many as an average parent has, the codes
// and what says whether they live; of the beams their slots and lineage.
struct SelectionSize {
  int level, requests, rows;
  bool parts;
};

double Bytes(const ConstraintView& constraint, const SelectionSize& size) {
  const auto [level, requests, rows, parts] = size;
  const TrieLevelView* levels = constraint.trie.level;
  const double logit_rows = level == 0 ? requests : rows;
  const double children =
      level == 0 ? levels[0].num_nodes : double(rows) * levels[level].num_nodes / levels[level - 1].num_nodes;
  double bytes = children * 2;
  bytes += parts ? logit_rows * RowParts(kVocab) * sizeof(RowPart) + children * 4 : logit_rows * kVocab * 4;
  if (constraint.eligibility[level].rule_bits != nullptr) bytes += children / 8;
  if (constraint.eligibility[level].dead_nodes != nullptr) bytes += children / 50 * 4;
  if (level > 0) bytes += rows * (4.0 + 4 + 8 + 4 * level);  // node, score, range of children, lineage
  return bytes + rows * (18.0 + 4 * (level + 1));
}

struct Setting {
  Form form;
  Head head = {};
};

void Selection(Bench& bench, int requests, const Catalogue& catalogue, const Setting& setting) {
  const auto& [form, head] = setting;
  const int rows = requests * kBeam;
  std::vector<int32_t> row_begin;
  for (int b = 0; b <= requests; ++b) row_begin.push_back(b * kBeam);
  static const float* const logits = static_cast<const float*>(RandomMatrix(8 * kBeam, kVocab, DataType::kFloat32));
  const bool legal = form == Form::kLegal || form == Form::kAllowList;
  const ConstraintView constraint = Constraint(catalogue, form);
  BeamSelectBatch batch;
  batch.logits = form == Form::kParts ? head.logits : logits;
  batch.parts = head.parts;
  batch.ld = batch.vocab = kVocab;
  batch.requests = requests;
  batch.rows = rows;
  batch.row_begin = Upload(row_begin);
  batch.width = Upload(std::vector<int32_t>(requests, kBeam));
  batch.rule = Upload(std::vector<ScoreRule>(requests, legal ? ScoreRule::kLegal : ScoreRule::kFull));
  batch.constraint = Upload(std::vector<ConstraintView>(requests, constraint));
  batch.error = static_cast<int32_t*>(Allocate(requests * 4));
  batch.workspace = Allocate(BeamSelectWorkspaceBytes(requests, rows));
  Require(BeamSelectPrepare(batch.workspace, requests, rows, nullptr), "BeamSelectPrepare");
  bench::Check(cudaDeviceSynchronize(), "BeamSelectPrepare");
  DeviceBeams slots[kLevels];
  int32_t* lineage[kLevels];
  for (int level = 0; level < kLevels; ++level) {
    slots[level] = Slots(requests, rows);
    lineage[level] = static_cast<int32_t*>(Allocate(static_cast<size_t>(level + 1) * rows * 4));
    batch.level = level;
    batch.out = slots[level];
    batch.lineage_out = lineage[level];
    if (level > 0) {
      batch.in = slots[level - 1];
      batch.lineage_in = lineage[level - 1];
    }
    bench.Run({"beam_select level " + std::to_string(level),
               Requests(requests) + ", " + std::to_string(catalogue.items) + " items" + Name(form),
               Bytes(constraint, {level, requests, rows, form == Form::kParts}), 0,
               [batch](cudaStream_t stream) { Require(BeamSelectCuda(batch, stream), "BeamSelectCuda"); }});
  }
  std::vector<int32_t> errors(requests);
  bench::Check(cudaMemcpy(errors.data(), batch.error, requests * 4, cudaMemcpyDeviceToHost), "errors");
  if (std::any_of(errors.begin(), errors.end(), [](int32_t error) { return error != 0; })) {
    std::fprintf(stderr, "beam_select%s: a request failed\n", Name(form));
    std::exit(1);
  }
}

}  // namespace

void SelectionCases(Bench& bench, bool quick) {
  const Catalogue small = RandomCatalogue(100'000);
  const Head head = RunHead(bench);
  for (int requests : {1, 8}) {
    for (Form form : {Form::kFull, Form::kLegal, Form::kRuleBits, Form::kDeadNodes, Form::kAllowList}) {
      Selection(bench, requests, small, {form});
    }
    if (head.parts != nullptr) Selection(bench, requests, small, {Form::kParts, head});
  }
  if (quick) return;
  const Catalogue large = RandomCatalogue(10'000'000);
  for (int requests : {1, 8}) {
    for (Form form : {Form::kFull, Form::kDeadNodes}) Selection(bench, requests, large, {form});
  }
}

}  // namespace beamline::kernels
