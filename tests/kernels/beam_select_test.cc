// SPDX-License-Identifier: Apache-2.0
//
// The selection against a naive one in double precision, over thousands of random tries, rows, widths and
// eligibilities. Two steps make it exact in spite of rounding: at full width every candidate's numbers are compared
// with the naive ones, and every narrower width must then be a prefix of the full list, bit for bit.
#include "beamline/kernels/beam_select.h"

#include <cmath>
#include <random>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/trie_fixture.h"

namespace beamline::kernels {
namespace {

// Log-probability of every code of a row, by the definition.
std::vector<double> NaiveLogProbs(const float* row, int vocab, const std::set<int>& summed) {
  double sum = 0;
  double max = -INFINITY;
  for (int code : summed) max = std::max<double>(max, row[code]);
  for (int code : summed) sum += std::exp(row[code] - max);
  std::vector<double> log_probs(vocab);
  for (int code = 0; code < vocab; ++code) log_probs[code] = row[code] - max - std::log(sum);
  return log_probs;
}

// One random problem: a trie, who is eligible in it by brute force, and logits drawn from few values so that ties are
// common.
struct Problem {
  explicit Problem(uint32_t seed) : random(seed), levels(1 + seed % 4), vocab(1 + random() % 12) {
    tuples = RandomTuples(random, levels, vocab, 1 + random() % 40);
    trie = std::make_unique<TestTrie>(tuples, levels);
    for (const Tuple& tuple : tuples) {
      if (!with_rule || random() % 3 != 0) passing.insert(tuple);
    }
    for (const Tuple& tuple : passing) {
      if (!with_deny || random() % 3 != 0) eligible.insert(tuple);
    }
    constraint.trie = constraint.snapshot_trie = trie->view();
    for (int level = 0; level < levels; ++level) AddLevel(level);
  }

  void AddLevel(int level) {
    const uint32_t nodes = static_cast<uint32_t>(trie->prefixes[level].size());
    rule_bits[level].assign((nodes + 63) / 64, 0);
    for (uint32_t node = 0; node < nodes; ++node) {
      const bool passes = Under(passing, trie->prefixes[level][node]);
      if (passes) rule_bits[level][node / 64] |= uint64_t{1} << (node % 64);
      if (passes && !Under(eligible, trie->prefixes[level][node])) dead[level].push_back(node);
    }
    constraint.eligibility[level] = {with_rule ? rule_bits[level].data() : nullptr, dead[level].data(),
                                     static_cast<uint32_t>(dead[level].size())};
  }

  static bool Under(const std::set<Tuple>& leaves, const Tuple& prefix) {
    return std::any_of(leaves.begin(), leaves.end(),
                       [&](const Tuple& leaf) { return std::equal(prefix.begin(), prefix.end(), leaf.begin()); });
  }

  std::vector<float> RandomLogits(size_t rows) {
    std::vector<float> logits(rows * vocab);
    for (float& x : logits) x = 0.5f * static_cast<float>(static_cast<int>(random() % 7) - 3);
    if (random() % 4 == 0) logits[random() % logits.size()] = -0.0f;
    if (vocab > 1 && random() % 4 == 0) logits[random() % vocab] = -INFINITY;
    return logits;
  }

  std::mt19937 random;
  int levels;
  int vocab;
  bool with_rule = random() % 2 == 0;
  bool with_deny = random() % 2 == 0;
  std::set<Tuple> tuples, passing, eligible;
  std::unique_ptr<TestTrie> trie;
  std::vector<uint64_t> rule_bits[kMaxTrieLevels];
  std::vector<uint32_t> dead[kMaxTrieLevels];
  ConstraintView constraint;
};

struct NaiveCandidate {
  double score;
  double log_prob;
  int parent;
};

// Every eligible child of every parent, by node.
std::map<uint32_t, NaiveCandidate> NaiveCandidates(const Problem& problem, const StepInput& input) {
  std::map<uint32_t, NaiveCandidate> candidates;
  const size_t rows = input.level == 0 ? 1 : input.parents.size();
  for (size_t row = 0; row < rows; ++row) {
    const Tuple parent = input.level == 0 ? Tuple{} : problem.trie->prefixes[input.level - 1][input.parents[row].node];
    std::set<int> children, all;
    for (int code = 0; code < input.vocab; ++code) {
      Tuple child = parent;
      child.push_back(static_cast<uint16_t>(code));
      all.insert(code);
      if (Problem::Under(problem.tuples, child)) children.insert(code);
    }
    const float* logits = input.logits.data() + row * input.vocab;
    const std::vector<double> log_probs =
        NaiveLogProbs(logits, input.vocab, input.rule == ScoreRule::kFull ? all : children);
    for (int code : children) {
      Tuple child = parent;
      child.push_back(static_cast<uint16_t>(code));
      if (!Problem::Under(problem.eligible, child) || logits[code] == -INFINITY) continue;
      const double score = (input.level == 0 ? 0.0 : input.parents[row].score) + log_probs[code];
      candidates[problem.trie->Find(input.level, child)] = {score, log_probs[code], static_cast<int>(row)};
    }
  }
  return candidates;
}

void CheckFullWidth(const Problem& problem, const StepInput& input, const std::vector<Beam>& beams) {
  const std::map<uint32_t, NaiveCandidate> naive = NaiveCandidates(problem, input);
  ASSERT_EQ(beams.size(), naive.size());
  for (size_t i = 0; i < beams.size(); ++i) {
    const Beam& beam = beams[i];
    ASSERT_TRUE(naive.contains(beam.node));
    const NaiveCandidate& expected = naive.at(beam.node);
    EXPECT_NEAR(beam.log_prob, expected.log_prob, 2e-6);
    EXPECT_NEAR(beam.score, expected.score, 2e-6);
    EXPECT_EQ(beam.parent, expected.parent);
    EXPECT_EQ(beam.code, problem.trie->codes[input.level][beam.node]);
    EXPECT_EQ(beam.score, (input.level == 0 ? 0.0f : input.parents[beam.parent].score) + beam.log_prob);
    if (i > 0) {
      const Beam& before = beams[i - 1];
      EXPECT_TRUE(before.score > beam.score || (before.score == beam.score && before.node < beam.node)) << i;
    }
  }
}

TEST(BeamSelect, EqualsTheNaiveSelectionOnRandomTries) {
  int steps = 0;
  int ties = 0;
  for (uint32_t seed = 0; seed < 3000; ++seed) {
    SCOPED_TRACE(seed);
    Problem problem(seed);
    StepInput input{.constraint = &problem.constraint, .vocab = problem.vocab};
    input.rule = seed % 3 == 0 ? ScoreRule::kLegal : ScoreRule::kFull;
    for (int level = 0; level < problem.levels; ++level) {
      input.level = level;
      input.logits = problem.RandomLogits(level == 0 ? 1 : std::max<size_t>(1, input.parents.size()));
      input.width = 200;  // more than any trie here has nodes
      const StepOutput full = Select(input);
      if (full.error == SelectError::kNonFiniteLogits) break;  // a `legal` sum over -inf alone
      ASSERT_EQ(full.error, SelectError::kOk);
      CheckFullWidth(problem, input, full.beams);
      for (size_t i = 1; i < full.beams.size(); ++i) ties += full.beams[i].score == full.beams[i - 1].score;
      for (int width : {0, 1, 2, 3, 5, 8, static_cast<int>(full.beams.size())}) {
        input.width = width;
        std::vector<Beam> best = full.beams;
        best.resize(std::min<size_t>(best.size(), width));
        ASSERT_EQ(Select(input).beams, best) << "width " << width;
      }
      input.parents = full.beams;
      input.parents.resize(std::min<size_t>(input.parents.size(), 1 + problem.random() % 10));
      ++steps;
    }
  }
  EXPECT_GT(steps, 5000);
  EXPECT_GT(ties, 5000);
}

// Large enough that the candidate buffer overflows many times, and with every order in which scores may arrive.
TEST(BeamSelect, IsExactWhenCandidatesOutnumberTheBuffer) {
  std::mt19937 random(11);
  const int vocab = 3000;
  std::set<Tuple> tuples;
  for (int parent = 0; parent < 4; ++parent) {
    for (int code = parent; code < vocab; code += 1 + parent) {
      tuples.insert({static_cast<uint16_t>(parent), static_cast<uint16_t>(code)});
    }
  }
  std::vector<uint16_t> codes;
  const TestTrie trie(tuples, 2);
  ConstraintView constraint;
  constraint.trie = constraint.snapshot_trie = trie.view();
  for (int order = 0; order < 3; ++order) {
    StepInput input{.constraint = &constraint, .level = 1, .vocab = vocab, .width = 8000};
    for (int parent = 0; parent < 4; ++parent) {
      input.parents.push_back({.node = static_cast<uint32_t>(parent), .score = -0.25f * parent});
      for (int code = 0; code < vocab; ++code) {
        const float noise = static_cast<float>(random() % 1000) * 0.01f;
        input.logits.push_back(order == 0 ? noise : (order == 1 ? 0.001f : -0.001f) * code);
      }
    }
    const StepOutput full = Select(input);
    ASSERT_EQ(full.beams.size(), tuples.size());
    EXPECT_TRUE(std::is_sorted(full.beams.begin(), full.beams.end(), [](const Beam& a, const Beam& b) {
      return a.score > b.score || (a.score == b.score && a.node < b.node);
    }));
    for (int width : {1, 7, 127, 128, 129, 512, 2048}) {
      input.width = width;
      ASSERT_EQ(Select(input).beams, std::vector<Beam>(full.beams.begin(), full.beams.begin() + width));
    }
  }
}

// Codes that begin at a later column: the same beams with the other columns' weight taken off, under `legal` bit for
// bit.
TEST(BeamSelect, CodesBeginAtFirstCode) {
  int compared = 0;
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    Problem problem(seed);
    const int before = 1 + static_cast<int>(seed % 7), after = static_cast<int>(seed % 3);
    for (const ScoreRule rule : {ScoreRule::kFull, ScoreRule::kLegal}) {
      StepInput plain{.constraint = &problem.constraint, .vocab = problem.vocab, .width = 200, .rule = rule};
      plain.logits = problem.RandomLogits(1);
      StepInput wide = plain;
      wide.vocab = before + problem.vocab + after;
      wide.first_code = before;
      wide.logits.insert(wide.logits.begin(), before, 1.0f);
      wide.logits.insert(wide.logits.end(), after, 1.0f);
      const StepOutput expected = Select(plain), actual = Select(wide);
      ASSERT_EQ(actual.error, expected.error);
      if (rule == ScoreRule::kLegal) {
        EXPECT_EQ(actual.beams, expected.beams);
        continue;
      }
      double own = 0;
      for (const float x : plain.logits) own += std::exp(x);
      const double lost = std::log(own + (before + after) * std::exp(1.0)) - std::log(own);
      ASSERT_EQ(actual.beams.size(), expected.beams.size());
      for (size_t i = 0; i < actual.beams.size(); ++i, ++compared) {
        EXPECT_EQ(actual.beams[i].node, expected.beams[i].node);
        EXPECT_NEAR(actual.beams[i].score, expected.beams[i].score - lost, 2e-6);
      }
    }
  }
  EXPECT_GT(compared, 500);
}

// An allow-list trie has node ids of its own; sums of the `legal` rule still run over the snapshot's children.
TEST(BeamSelect, AllowListTrieScoresAsTheSnapshotDoes) {
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    const int vocab = 6;
    const std::set<Tuple> tuples = RandomTuples(random, 2, vocab, 20);
    std::set<Tuple> allowed;
    for (const Tuple& tuple : tuples) {
      if (random() % 2 == 0) allowed.insert(tuple);
    }
    if (allowed.empty()) continue;
    const TestTrie snapshot(tuples, 2);
    const TestTrie own(allowed, 2);
    std::vector<uint32_t> map[2];
    ConstraintView whole, restricted;
    whole.trie = whole.snapshot_trie = restricted.snapshot_trie = snapshot.view();
    restricted.trie = own.view();
    for (int level = 0; level < 2; ++level) {
      for (const Tuple& prefix : own.prefixes[level]) map[level].push_back(snapshot.Find(level, prefix));
      restricted.snapshot_node[level] = map[level].data();
    }
    for (ScoreRule rule : {ScoreRule::kFull, ScoreRule::kLegal}) {
      StepInput input{.constraint = &whole, .vocab = vocab, .width = 100, .rule = rule};
      for (int i = 0; i < vocab; ++i) input.logits.push_back(0.25f * static_cast<float>(random() % 9));
      StepInput own_input = input;
      own_input.constraint = &restricted;
      input.parents = Select(input).beams;
      own_input.parents = Select(own_input).beams;
      input.level = own_input.level = 1;
      // Each prefix has one row of logits, wherever it stands in either list.
      std::vector<float> rows(snapshot.codes[0].size() * vocab);
      for (float& x : rows) x = 0.25f * static_cast<float>(random() % 9);
      input.logits.clear();
      own_input.logits.clear();
      for (const Beam& beam : input.parents) {
        input.logits.insert(input.logits.end(), rows.begin() + beam.node * vocab,
                            rows.begin() + (beam.node + 1) * vocab);
      }
      for (const Beam& beam : own_input.parents) {
        const uint32_t node = map[0][beam.node];
        own_input.logits.insert(own_input.logits.end(), rows.begin() + node * vocab, rows.begin() + (node + 1) * vocab);
      }
      std::vector<std::pair<uint32_t, float>> expected, actual;
      for (const Beam& beam : Select(input).beams) {
        if (allowed.contains(snapshot.prefixes[1][beam.node])) expected.emplace_back(beam.node, beam.score);
      }
      for (const Beam& beam : Select(own_input).beams) actual.emplace_back(map[1][beam.node], beam.score);
      EXPECT_EQ(actual, expected);
    }
  }
}

}  // namespace
}  // namespace beamline::kernels
