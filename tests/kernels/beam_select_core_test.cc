// SPDX-License-Identifier: Apache-2.0
//
// The algorithm of the CUDA selection, run on the host: blocks of each kernel one after the other in random order, each
// thread's work in sequence. What this leaves to a GPU is races, and the two reductions that CudaBlock does with
// shuffles.
#include "cuda/beam_select_core.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <numeric>
#include <utility>

#include "cpu/row_ops.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/select_batch.h"

namespace beamline::kernels {
namespace {

template <int kPerSlot, int kSpare>
class HostBlock {
 public:
  static constexpr int kCandidatesPerSlot = kPerSlot;
  static constexpr int kSpareCandidates = kSpare;
  struct ScanResult {
    float max;
    bool bad;
  };

  select::Shared& shared() { return shared_; }
  template <class F>
  void ForEach(int32_t n, F f) {
    for (int32_t i = n; i > 0; --i) f(i - 1);
  }
  template <class LoadOne, class F>
  void LoadEach(int32_t n, LoadOne load, F f) {
    ForEach(n, [&](int32_t i) { f(i, load(i)); });
  }
  template <class F>
  void ForEachOfWarp(int32_t n, F f) {
    ForEach(n, f);
  }
  void Barrier() {}
  template <class F>
  void Once(F f) {
    f();
  }
  template <class At>
  ScanResult Scan(int32_t n, At at) {
    const std::vector<float> values = Values(n, at);
    ScanResult result;
    result.bad = !BestRowOps().scan(values.data(), n, &result.max);
    return result;
  }
  template <class At>
  double SumExp(int32_t n, At at, float max) {
    const std::vector<float> values = Values(n, at);
    return BestRowOps().sum_exp(values.data(), n, max, values.data());
  }
  template <class At>
  double Sum(int32_t n, At at) {
    double sum = 0;
    for (int32_t i = 0; i < n; ++i) sum += at(i);
    return sum;
  }
  bool IsLast(uint32_t* counter, int32_t n) {
    if (++*counter != static_cast<uint32_t>(n)) return false;
    *counter = 0;
    return true;
  }
  template <class T>
  T Load(const T* p) {
    return *p;
  }
  uint32_t Add(uint32_t* p, uint32_t value) { return std::exchange(*p, *p + value); }
  uint32_t Append(uint32_t* counter) {
    appended = std::max(appended, *counter + 1);
    return Add(counter, 1);
  }
  void Max(uint32_t* p, uint32_t value) { *p = std::max(*p, value); }

  uint32_t appended = 0;  // the most candidates that were in a buffer

 private:
  template <class At>
  static std::vector<float> Values(int32_t n, At at) {
    std::vector<float> values(n);
    for (int32_t i = 0; i < n; ++i) values[i] = at(i);
    return values;
  }
  select::Shared shared_ = {};
};

// Runs the kernels and counts, of later levels, how often the second one had work, and how deep it went.
template <class Block>
class HostLauncher {
 public:
  explicit HostLauncher(SelectBatch* batch) : batch_(*batch) {
    layout_ = {batch_.requests(), batch_.rows};
    workspace_.resize(layout_.bytes(), 0xee);
    std::fill_n(workspace_.begin(), layout_.state_bytes(), 0);
  }

  void Step(std::mt19937& random) {
    BeamSelectBatch view = batch_.view();
    view.workspace = workspace_.data();
    std::vector<int32_t> rows(batch_.logit_rows());
    std::iota(rows.begin(), rows.end(), 0);
    const auto for_each_block = [&](auto kernel) {
      std::shuffle(rows.begin(), rows.end(), random);
      for (int32_t row : rows) {
        auto block = std::make_unique<Block>();
        kernel(*block, row);
        const int32_t of = view.level == 0 ? row : select::RequestOfRow(view.row_begin, view.requests, row);
        if (of >= view.requests) continue;
        EXPECT_LE(block->appended, select::Layout<Block>::Capacity(view.row_begin[of + 1] - view.row_begin[of], 1));
      }
    };
    std::vector<select::Candidate> sort_space(select::kSortShared);
    if (view.level == 0) {
      return for_each_block(
          [&](Block& block, int32_t row) { select::SelectFirst(block, view, row, sort_space.data()); });
    }
    for_each_block([&](Block& block, int32_t row) { select::NormaliseRow(block, view, row); });
    const select::Workspace work = layout_.At(workspace_.data());
    for (int b = 0; b < batch_.requests(); ++b) refined += work.state[b].collectable == 0 && work.state[b].digits > 0;
    for_each_block([&](Block& block, int32_t row) { select::RefineRow(block, view, row); });
    for (int b = 0; b < batch_.requests(); ++b) settled += work.state[b].digits > 2;
    for_each_block([&](Block& block, int32_t row) { select::CollectRow(block, view, row, sort_space.data()); });
  }

  bool StateIsZero() const {
    return std::all_of(workspace_.begin(), workspace_.begin() + static_cast<int64_t>(layout_.state_bytes()),
                       [](unsigned char byte) { return byte == 0; });
  }

  int refined = 0;  // requests for which the first digit did not settle the beams
  int settled = 0;  // requests that needed more digits than two kernels count

 private:
  SelectBatch& batch_;
  select::Layout<Block> layout_;
  std::vector<unsigned char> workspace_;
};

template <class Block>
void CheckRandomBatches(uint32_t seeds, int max_width, int* refined, int* settled) {
  for (uint32_t seed = 0; seed < seeds; ++seed) {
    RandomBatch problem(seed, /*max_vocab=*/12, /*max_leaves=*/60, max_width);
    problem.batch.with_parts = seed % 2 == 1;  // one a row: the CPU's own sum
    HostLauncher<Block> launcher(&problem.batch);
    std::vector<SelectError> failed;
    for (int level = 0; level < problem.levels; ++level) {
      problem.BeginStep(level);
      launcher.Step(problem.random);
      ASSERT_EQ(problem.batch.Wrong(&failed), "") << "seed " << seed;
      ASSERT_TRUE(launcher.StateIsZero()) << "seed " << seed;
    }
    *refined += launcher.refined;
    *settled += launcher.settled;
  }
}

// No spare candidates: the radix passes decide everything.
TEST(BeamSelectCore, EqualsTheCpuOnRandomBatches) {
  int refined = 0, settled = 0;
  CheckRandomBatches<HostBlock<1, 0>>(1000, /*max_width=*/24, &refined, &settled);
  CheckRandomBatches<HostBlock<1, 0>>(6000, /*max_width=*/4, &refined, &settled);
  EXPECT_GT(refined, 400);
  EXPECT_GT(settled, 200);
}

TEST(BeamSelectCore, EqualsTheCpuWithTheDevicesBuffers) {
  int refined = 0, settled = 0;
  CheckRandomBatches<HostBlock<2, 1024>>(500, /*max_width=*/24, &refined, &settled);
}

// Four parents of 750 to 3000 children, more than the device's buffer holds, with every order and with all scores
// equal.
TEST(BeamSelectCore, IsExactWhenCandidatesOutnumberTheBuffer) {
  std::mt19937 random(5);
  const int vocab = 3000, parents = 4;
  const WideTrie trie({1, 2, 3, 4}, vocab);
  int settled = 0;
  for (int order = 0; order < 4; ++order) {
    for (int width : {1, 7, 511, 512, 2048, 6250, 6300}) {
      SelectBatch batch;
      batch.vocab = vocab;
      batch.Add(trie.constraint, ScoreRule::kFull, {parents, width}, 0);
      HostLauncher<HostBlock<2, 1024>> launcher(&batch);
      std::vector<SelectError> failed;
      for (int level = 0; level < 2; ++level) {
        batch.BeginStep(level);
        batch.logits.resize(static_cast<size_t>(batch.logit_rows()) * vocab);
        for (size_t i = 0; i < std::min<size_t>(batch.logits.size(), parents * vocab); ++i) {
          const float ramp = 0.001f * static_cast<float>(i % vocab);
          batch.logits[i] = order == 0 ? 0.01f * static_cast<float>(random() % 1000)
                                       : (order == 1   ? ramp
                                          : order == 2 ? -ramp
                                                       : 0.0f);
        }
        launcher.Step(random);
        ASSERT_EQ(batch.Wrong(&failed), "") << "order " << order << " width " << width;
      }
      settled += launcher.settled;
    }
  }
  EXPECT_GT(settled, 0);
}

// Of several parts: the log-probability of a leaf is what double precision gives of the whole row.
TEST(BeamSelectCore, JoinsTheSumsOfParts) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal(0, 4);
  const int vocab = 700, codes = 40;
  std::vector<uint16_t> roots(codes);
  std::iota(roots.begin(), roots.end(), 0);
  ConstraintView constraint;
  constraint.trie.levels = 1;
  constraint.trie.level[0] = {roots.data(), nullptr, codes};
  constraint.snapshot_trie = constraint.trie;
  for (const int bad : {-1, 0, 400, 699}) {
    for (const float value : {NAN, INFINITY, -INFINITY}) {
      SelectBatch batch;
      batch.vocab = vocab;
      batch.with_parts = true;
      batch.Add(constraint, ScoreRule::kFull, {codes}, 0);
      HostLauncher<HostBlock<2, 1024>> launcher(&batch);
      batch.BeginStep(0);
      batch.logits.resize(vocab);
      for (float& x : batch.logits) x = normal(random);
      if (bad >= 0) batch.logits[bad] = value;
      launcher.Step(random);
      if (bad >= 0 && value != -INFINITY) {
        EXPECT_EQ(batch.error[0], static_cast<int32_t>(SelectError::kNonFiniteLogits)) << bad << " " << value;
        continue;
      }
      double sum = 0;
      for (const float x : batch.logits) sum += std::exp(double{x});
      ASSERT_EQ(batch.out.count[0], bad == 0 ? codes - 1 : codes);
      for (int i = 0; i < batch.out.count[0]; ++i) {
        EXPECT_NEAR(batch.out.log_prob[i], batch.logits[batch.out.code[i]] - std::log(sum), 4e-6);
      }
    }
  }
}

TEST(BeamSelectCore, RequestOfRow) {
  const std::vector<int32_t> begin = {0, 3, 4, 9};
  for (int32_t row = 0; row < 12; ++row) {
    EXPECT_EQ(select::RequestOfRow(begin.data(), 3, row), row < 3 ? 0 : row < 4 ? 1 : row < 9 ? 2 : 3) << row;
  }
}

TEST(BeamSelectCore, DigitsAreTheGapAndTheKey) {
  const select::Standing all{0x2f4d97u, 0x8123456789abcdefu};
  select::Standing joined{0, 0};
  for (uint32_t digit = 0; digit < select::kGapDigits + select::kKeyDigits; ++digit) {
    EXPECT_LT(all.Digit(digit), static_cast<uint32_t>(select::kBins));
    if (digit < select::kGapDigits) {
      joined.gap = joined.gap << 11 | all.Digit(digit);
    } else {
      const uint32_t of_key = digit - select::kGapDigits;
      const uint32_t bits = select::UndecidedBits(of_key) - select::UndecidedBits(of_key + 1);
      joined.key = joined.key << bits | all.Digit(digit);
    }
    EXPECT_EQ(joined, all.Leading(digit + 1)) << digit;
  }
  EXPECT_EQ(joined, all);
}

// What makes a selection by it exact: no candidate with a smaller key has a larger gap.
TEST(BeamSelectCore, GapsNeverFallAsKeysRise) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> exponent(-30, 30);
  for (const float best : {0.0f, -3.25f, -1e-6f, -700.0f, 5.0f, -FLT_MAX, -INFINITY, NAN}) {
    std::vector<float> scores = {0.0f, -0.0f, best, best - 0.0625f, best - 4096, -FLT_MAX, 1.0f};
    for (int i = 0; i < 20000; ++i) scores.push_back((i % 9 == 0 ? 1.0f : -1.0f) * std::exp2(exponent(random)));
    for (int i = 0; i < 1000; ++i) scores.push_back(std::nextafter(scores.back(), -INFINITY));
    std::erase_if(scores, [](float score) { return !(score >= -FLT_MAX); });
    std::sort(scores.begin(), scores.end(), [](float a, float b) { return OrderKey(a, 0) < OrderKey(b, 0); });
    for (size_t i = 1; i < scores.size(); ++i) {
      ASSERT_LE(select::Gap(best, scores[i - 1]), select::Gap(best, scores[i])) << best << " " << scores[i];
      ASSERT_LT(select::Gap(best, scores[i]), 1u << 22);
    }
  }
  EXPECT_EQ(select::Gap(0, -0.0625f), 0);
  EXPECT_GT(select::Gap(0, -10.0f) >> 11, select::Gap(0, -9.9f) >> 11) << "told apart by the first digit";
}

// Of 80,000 candidates as a network scores them the first digit leaves so few that the second has nothing to do.
TEST(BeamSelectCore, OneLookAtAllCandidatesIsEnough) {
  std::mt19937 random(9);
  const int vocab = 8192, parents = 10;
  const WideTrie trie(parents, vocab, 1);
  for (const float spread : {0.3f, 1.0f, 4.0f}) {
    std::normal_distribution<float> normal(0, spread);
    SelectBatch batch;
    batch.vocab = vocab;
    batch.Add(trie.constraint, ScoreRule::kFull, {parents, 512}, 0);
    HostLauncher<HostBlock<2, 1024>> launcher(&batch);
    std::vector<SelectError> failed;
    for (int level = 0; level < 2; ++level) {
      batch.BeginStep(level);
      batch.logits.resize(static_cast<size_t>(batch.logit_rows()) * vocab);
      for (float& x : batch.logits) x = normal(random);
      launcher.Step(random);
      ASSERT_EQ(batch.Wrong(&failed), "") << spread;
    }
    EXPECT_EQ(batch.out.count[0], 512);
    EXPECT_EQ(launcher.refined, 0) << spread;
  }
}

}  // namespace
}  // namespace beamline::kernels
