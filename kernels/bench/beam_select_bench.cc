// SPDX-License-Identifier: Apache-2.0
//
// Time of one selection step on one thread. Workloads, rows x vocabulary:
//   Select/root/W       the first step: one row, every code a child
//   Select/sparse/W     W rows, each parent with 1/8 of the codes as children (10^7 items over 3 x 8192, level 1)
//   Select/dense/W      W rows, each parent with every code as a child: the most a step can cost
//   Scan/W              reading W rows once for their maximum: the floor, "one pass over beams x vocabulary"
#include <cstdint>
#include <random>
#include <vector>

#include "beamline/kernels/beam_select.h"
#include "benchmark/benchmark.h"

namespace beamline::kernels {
namespace {

constexpr int kVocab = 8192;

// A two-level trie in which each of `parents` nodes has one child per `stride` codes, and one step's inputs over it.
struct Workload {
  Workload(int parents, int stride)
      : logits(static_cast<size_t>(parents) * kVocab), in_node(parents), in_score(parents) {
    std::mt19937 random(7);
    std::normal_distribution<float> normal(0.0f, 3.0f);
    for (float& x : logits) x = normal(random);
    offsets.push_back(0);
    for (int p = 0; p < parents; ++p) {
      roots.push_back(static_cast<uint16_t>(p));
      for (int code = 0; code < kVocab; code += stride) codes.push_back(static_cast<uint16_t>(code));
      offsets.push_back(static_cast<uint32_t>(codes.size()));
      in_node[p] = p;
      in_score[p] = -0.01f * p;
    }
    constraint.trie.levels = 2;
    constraint.trie.level[0] = {roots.data(), offsets.data(), static_cast<uint32_t>(parents)};
    constraint.trie.level[1] = {codes.data(), nullptr, static_cast<uint32_t>(codes.size())};
    constraint.snapshot_trie = constraint.trie;
  }

  std::vector<float> logits;
  std::vector<uint16_t> roots, codes;
  std::vector<uint32_t> offsets, in_node;
  std::vector<float> in_score;
  ConstraintView constraint;
};

void Run(benchmark::State& state, Workload& work, int width, ScoreRule rule) {
  const int parents = static_cast<int>(work.in_node.size());
  std::vector<uint32_t> node(width);
  std::vector<float> score(width), log_prob(width);
  std::vector<int32_t> parent(width);
  std::vector<uint16_t> code(width);
  BeamSlots in{.node = work.in_node.data(), .score = work.in_score.data(), .count = parents};
  BeamSlots out{node.data(), score.data(), parent.data(), code.data(), log_prob.data(), 0};
  const BeamSelectArgs args{.logits = work.logits.data(),
                            .ld = kVocab,
                            .vocab = kVocab,
                            .level = 1,
                            .width = width,
                            .rule = rule,
                            .constraint = &work.constraint,
                            .in = &in,
                            .out = &out};
  for (auto _ : state) {
    if (BeamSelectCpu(args) != SelectError::kOk || out.count != width) state.SkipWithError("selection failed");
    benchmark::DoNotOptimize(score.data());
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * work.logits.size() * sizeof(float));
}

void Root(benchmark::State& state) {
  Workload work(1, 1);
  Run(state, work, static_cast<int>(state.range(0)), ScoreRule::kFull);
}
void Sparse(benchmark::State& state) {
  Workload work(static_cast<int>(state.range(0)), 8);
  Run(state, work, static_cast<int>(state.range(0)), ScoreRule::kFull);
}
void SparseLegal(benchmark::State& state) {
  Workload work(static_cast<int>(state.range(0)), 8);
  Run(state, work, static_cast<int>(state.range(0)), ScoreRule::kLegal);
}
void Dense(benchmark::State& state) {
  Workload work(static_cast<int>(state.range(0)), 1);
  Run(state, work, static_cast<int>(state.range(0)), ScoreRule::kFull);
}

void Scan(benchmark::State& state) {
  Workload work(static_cast<int>(state.range(0)), 8);
  for (auto _ : state) {
    uint32_t bits = 0;
    const size_t count = work.logits.size();
    const uint32_t* words = reinterpret_cast<const uint32_t*>(work.logits.data());
    for (size_t i = 0; i < count; ++i) bits |= words[i];
    benchmark::DoNotOptimize(bits);
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations()) * work.logits.size() * sizeof(float));
}

BENCHMARK(Root)->Name("Select/root")->Arg(32)->Arg(512)->Unit(benchmark::kMicrosecond);
BENCHMARK(Sparse)->Name("Select/sparse")->Arg(32)->Arg(512)->Unit(benchmark::kMicrosecond);
BENCHMARK(SparseLegal)->Name("Select/sparse_legal")->Arg(32)->Arg(512)->Unit(benchmark::kMicrosecond);
BENCHMARK(Dense)->Name("Select/dense")->Arg(32)->Arg(512)->Unit(benchmark::kMicrosecond);
BENCHMARK(Scan)->Arg(32)->Arg(512)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace beamline::kernels
