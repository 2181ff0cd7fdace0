// SPDX-License-Identifier: Apache-2.0
#include "decode/end_trie.h"

#include <cmath>
#include <vector>

#include "beamline/kernels/beam_select.h"
#include "gtest/gtest.h"

namespace beamline::decode {
namespace {

// Four leaves in the search's order; the end token is column 2 of 3. The second and fourth tie after it: leaf 4 before
// leaf 9, whatever row they stood in.
TEST(EndTrie, ScoresTheEndTokenReordersAndKeepsEveryLeaf) {
  std::vector<uint32_t> node = {7, 9, 2, 4};
  std::vector<float> score = {-1, -2, -3, -2};
  kernels::BeamSlots leaves{.node = node.data(), .score = score.data(), .count = 4};
  EndTrie trie;
  trie.Bind(leaves);
  EndTrie moved = std::move(trie);

  const float p = std::log(0.5f);  // of the end token in every row but the first
  const std::vector<float> logits = {0, 0, -9, -40, 0, 0, -40, 0, 0, -40, 0, 0};
  std::vector<uint32_t> out_node(4);
  std::vector<float> out_score(4), log_prob(4);
  std::vector<int32_t> parent(4);
  std::vector<uint16_t> code(4, 77);
  kernels::BeamSlots out{out_node.data(), out_score.data(), parent.data(), code.data(), log_prob.data(), 0};
  ASSERT_EQ(kernels::BeamSelectCpu({.logits = logits.data(),
                                    .ld = 3,
                                    .vocab = 3,
                                    .first_code = 2,
                                    .level = EndTrie::kEndLevel,
                                    .width = 4,
                                    .constraint = &moved.constraint(),
                                    .in = &moved.beams(),
                                    .out = &out}),
            kernels::SelectError::kOk);
  moved.RestoreLeaves(out);
  ASSERT_EQ(out.count, 4);
  EXPECT_EQ(out_node, (std::vector<uint32_t>{4, 9, 2, 7}));
  EXPECT_EQ(parent, (std::vector<int32_t>{3, 1, 2, 0}));
  EXPECT_EQ(code, (std::vector<uint16_t>{0, 0, 0, 0}));
  EXPECT_NEAR(out_score[0], -2 + p, 1e-6);
  EXPECT_NEAR(log_prob[3], -9 - std::log(2 + std::exp(-9.0)), 1e-5);
}

}  // namespace
}  // namespace beamline::decode
