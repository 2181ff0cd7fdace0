// SPDX-License-Identifier: Apache-2.0
//
// Rows that are not ordinary: ties, signed zeros, infinities, NaN, huge values; tries and widths at their edges.
#include <cmath>
#include <limits>

#include "beamline/kernels/beam_select.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/trie_fixture.h"

namespace beamline::kernels {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Four codes under the root.
class OneLevel : public testing::Test {
 protected:
  OneLevel() : trie_({{0}, {1}, {2}, {3}}, 1) {
    constraint_.trie = constraint_.snapshot_trie = trie_.view();
    input_ = {.constraint = &constraint_, .vocab = 4, .width = 4};
  }
  StepOutput SelectFrom(std::vector<float> logits) {
    input_.logits = std::move(logits);
    return Select(input_);
  }
  std::vector<int> Codes(const StepOutput& output) {
    std::vector<int> codes;
    for (const Beam& beam : output.beams) codes.push_back(beam.code);
    return codes;
  }

  TestTrie trie_;
  ConstraintView constraint_;
  StepInput input_;
};

TEST_F(OneLevel, EqualLogitsComeInCodeOrder) {
  const StepOutput output = SelectFrom({1, 1, 1, 1});
  EXPECT_THAT(Codes(output), testing::ElementsAre(0, 1, 2, 3));
  EXPECT_FLOAT_EQ(output.beams[3].score, std::log(0.25f));
  input_.width = 2;
  EXPECT_THAT(Codes(SelectFrom({1, 1, 1, 1})), testing::ElementsAre(0, 1));
}

TEST_F(OneLevel, NegativeZeroEqualsZero) {
  EXPECT_THAT(Codes(SelectFrom({-0.0f, 0.0f, -0.0f, 0.0f})), testing::ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(Codes(SelectFrom({0.0f, -0.0f, 0.0f, -0.0f})), testing::ElementsAre(0, 1, 2, 3));
}

TEST_F(OneLevel, ScoresOfZeroOfEitherSignAreEqual) {
  // With one finite logit its log-probability is 0, and a parent's -0 must not set it apart.
  const TestTrie trie({{0, 0}, {1, 0}, {2, 0}}, 2);
  constraint_.trie = constraint_.snapshot_trie = trie.view();
  input_ = {.constraint = &constraint_, .level = 1, .vocab = 1, .width = 3, .logits = {5, 5, 5}};
  input_.parents = {{.node = 2, .score = 0.0f}, {.node = 0, .score = -0.0f}, {.node = 1, .score = 0.0f}};
  const StepOutput output = Select(input_);
  ASSERT_EQ(output.beams.size(), 3);
  EXPECT_EQ(output.beams[0].node, 0);
  EXPECT_EQ(output.beams[1].node, 1);
  EXPECT_EQ(output.beams[2].node, 2);
}

TEST_F(OneLevel, MinusInfinityIsNeverSelected) {
  const StepOutput output = SelectFrom({0, -kInf, 1, -kInf});
  EXPECT_EQ(output.error, SelectError::kOk);
  EXPECT_THAT(Codes(output), testing::ElementsAre(2, 0));
  EXPECT_NEAR(output.beams[0].score, -std::log1p(std::exp(-1.0)), 1e-6);
}

TEST_F(OneLevel, NonFiniteRowsFail) {
  for (const std::vector<float>& logits : std::vector<std::vector<float>>{{0, kNan, 0, 0},
                                                                          {kInf, 0, 0, 0},
                                                                          {0, 0, 0, kInf},
                                                                          {kNan, kNan, kNan, kNan},
                                                                          {-kInf, -kInf, -kInf, -kInf},
                                                                          {-kInf, -kInf, kNan, -kInf}}) {
    const StepOutput output = SelectFrom(logits);
    EXPECT_EQ(output.error, SelectError::kNonFiniteLogits) << testing::PrintToString(logits);
    EXPECT_TRUE(output.beams.empty());
  }
}

TEST_F(OneLevel, NanUnderAnIneligibleCodeFailsToo) {
  const std::vector<uint32_t> dead = {1};
  constraint_.eligibility[0] = {nullptr, dead.data(), 1};
  for (ScoreRule rule : {ScoreRule::kFull, ScoreRule::kLegal}) {
    input_.rule = rule;
    EXPECT_EQ(SelectFrom({0, kNan, 0, 0}).error, SelectError::kNonFiniteLogits);
  }
}

TEST_F(OneLevel, LegalSumOverMinusInfinityAloneFails) {
  const TestTrie trie({{0}, {1}}, 1);
  constraint_.trie = constraint_.snapshot_trie = trie.view();
  input_.rule = ScoreRule::kLegal;
  EXPECT_EQ(SelectFrom({-kInf, -kInf, 1, 1}).error, SelectError::kNonFiniteLogits);
  input_.rule = ScoreRule::kFull;
  const StepOutput output = SelectFrom({-kInf, -kInf, 1, 1});
  EXPECT_EQ(output.error, SelectError::kOk);
  EXPECT_TRUE(output.beams.empty());
}

TEST_F(OneLevel, HugeLogitsStayFinite) {
  const StepOutput output = SelectFrom({3e38f, -3e38f, 3e38f, 0});
  EXPECT_EQ(output.error, SelectError::kOk);
  // The log-probability of code 1 lies beyond fp32: probability zero.
  EXPECT_THAT(Codes(output), testing::ElementsAre(0, 2, 3));
  EXPECT_FLOAT_EQ(output.beams[0].score, std::log(0.5f));
  EXPECT_FLOAT_EQ(output.beams[2].score, -3e38f);
}

TEST_F(OneLevel, RowsOfInactiveParentsAreNotRead) {
  const TestTrie trie({{0, 0}, {1, 1}}, 2);
  constraint_.trie = constraint_.snapshot_trie = trie.view();
  input_ = {.constraint = &constraint_, .level = 1, .vocab = 2, .width = 2, .logits = {0, 0, kNan, kNan}};
  input_.parents = {{.node = 1, .score = -1}};
  const StepOutput output = Select(input_);
  EXPECT_EQ(output.error, SelectError::kOk);
  ASSERT_EQ(output.beams.size(), 1);
  EXPECT_EQ(output.beams[0].node, 1);
  input_.parents.push_back({.node = 0, .score = -2});
  EXPECT_EQ(Select(input_).error, SelectError::kNonFiniteLogits);
}

TEST_F(OneLevel, NoParentsGiveNoBeams) {
  const TestTrie trie({{0, 0}, {1, 1}}, 2);
  constraint_.trie = constraint_.snapshot_trie = trie.view();
  input_ = {.constraint = &constraint_, .level = 1, .vocab = 2, .width = 2, .logits = {kNan, kNan}};
  const StepOutput output = Select(input_);
  EXPECT_EQ(output.error, SelectError::kOk);
  EXPECT_TRUE(output.beams.empty());
}

TEST_F(OneLevel, EverythingDenied) {
  const std::vector<uint32_t> dead = {0, 1, 2, 3};
  constraint_.eligibility[0] = {nullptr, dead.data(), 4};
  EXPECT_TRUE(SelectFrom({0, 1, 2, 3}).beams.empty());
  const std::vector<uint64_t> none = {0};
  constraint_.eligibility[0] = {none.data(), nullptr, 0};
  EXPECT_TRUE(SelectFrom({0, 1, 2, 3}).beams.empty());
}

TEST_F(OneLevel, OneLeafAndWiderThanTheTrie) {
  const TestTrie trie({{2}}, 1);
  constraint_.trie = constraint_.snapshot_trie = trie.view();
  input_.width = 64;
  const StepOutput output = SelectFrom({9, 9, 0, 9});
  ASSERT_EQ(output.beams.size(), 1);
  EXPECT_EQ(output.beams[0].code, 2);
  EXPECT_EQ(output.beams[0].parent, 0);
}

TEST_F(OneLevel, InvalidArgumentsAreRefused) {
  EXPECT_EQ(SelectFrom({0, 0, 0, 0}).error, SelectError::kOk);
  StepInput bad = input_;
  bad.level = 1;  // one level only
  EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
  bad = input_;
  bad.vocab = 3;  // code 3 lies beyond the row
  EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
  bad.rule = ScoreRule::kLegal;
  EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
  bad = input_;
  bad.first_code = 1;  // code 3 would be column 4
  EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
  bad.rule = ScoreRule::kLegal;
  EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
  for (const int outside : {-1, 4}) {
    bad.first_code = outside;
    EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
  }
  bad = input_;
  bad.constraint = nullptr;
  EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
  const TestTrie trie({{0, 0}}, 2);
  constraint_.trie = constraint_.snapshot_trie = trie.view();
  bad = {.constraint = &constraint_, .level = 1, .vocab = 1, .width = 1, .logits = {0}};
  bad.parents = {{.node = 1}};  // level 0 has node 0 alone
  EXPECT_EQ(Select(bad).error, SelectError::kInvalidArgument);
}

}  // namespace
}  // namespace beamline::kernels
