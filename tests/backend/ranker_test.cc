// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "backend/reference.h"

namespace beamline::backend {
namespace {

class RankerTest : public OpsTest {
 protected:
  std::vector<float> Values(const Pair& pair) { return DownloadFloats(ctx_, pair.tensor); }
};

INSTANTIATE_TEST_SUITE_P(Backends, RankerTest, testing::ValuesIn(kOpsCases),
                         [](const auto& instance) { return instance.param.name(); });

// Three requests: candidates of their own, none, and a parent whose state is not a number.
TEST_P(RankerTest, RankBeams) {
  constexpr int64_t kRequests = 3, kRows = 4, kWidth = 24, kRankerHeads = 3, kCodes = 5;
  Pair states = Random(kRequests * kRows, kWidth);
  const Pair code = Random(kCodes, kWidth), head = Random(kRankerHeads, kWidth), bias = Random(1, kRankerHeads);
  const RankerWeights weights{
      code.tensor, head.tensor, UploadWeight(ctx_, Values(bias), {kRankerHeads}), {1, -2, 0.5f}, 0.25f};
  std::vector<float> raw = Values(states);
  raw[(2 * kRows + 1) * kWidth + 3] = std::numeric_limits<float>::quiet_NaN();
  states.tensor = UploadWeight(ctx_, raw, {kRequests * kRows, kWidth});
  std::vector<int32_t> parents[] = {{3, 0, 0, 2, 3}, {}, {1, 0}};
  std::vector<uint16_t> codes[] = {{4, 0, 3, 3, 4}, {}, {2, 2}};
  std::vector<float> scores[] = {{-1, -8, -2.5f, -3, -1}, {}, {-4, -5}};
  std::vector<float> values[] = {std::vector<float>(5), {}, std::vector<float>(2)};
  kernels::BeamSlots slots[kRequests];
  RankRequest requests[kRequests];
  for (int b = 0; b < kRequests; ++b) {
    slots[b].parent = parents[b].data();
    slots[b].code = codes[b].data();
    slots[b].score = scores[b].data();
    slots[b].count = static_cast<int32_t>(parents[b].size());
    if (b != 1) requests[b] = {&slots[b], values[b].data()};
  }
  RankBeams(ctx_, {.states = states.tensor, .weights = weights, .requests = requests});

  const auto expected = [&](int b, int i) {
    double value = double{weights.score_weight} * scores[b][i];
    for (int64_t h = 0; h < kRankerHeads; ++h) {
      double logit = bias.matrix(0, h);
      for (int64_t j = 0; j < kWidth; ++j) {
        logit += head.matrix(h, j) * Silu(states.matrix(b * kRows + parents[b][i], j) + code.matrix(codes[b][i], j));
      }
      value += weights.weights[h] * Sigmoid(logit);
    }
    return value;
  };
  // fp32 whatever the type: inputs are what the type has already rounded them to.
  for (int i = 0; i < 5; ++i) EXPECT_NEAR(values[0][i], expected(0, i), 2e-5);
  EXPECT_EQ(values[0][0], values[0][4]) << "the same candidate twice";
  EXPECT_TRUE(std::isnan(values[2][0]));
  EXPECT_NEAR(values[2][1], expected(2, 1), 2e-5);
}

// Alone and among others to the bit, as every op.
TEST_P(RankerTest, RankedAloneAndTogether) {
  if (std::string(GetParam().backend) == "aten") GTEST_SKIP() << "the oracle's products may depend on their rows";
  const Pair states = Random(40, 256), code = Random(7, 256), head = Random(2, 256), bias = Random(1, 2);
  const RankerWeights weights{code.tensor, head.tensor, UploadWeight(ctx_, Values(bias), {2}), {1, 2}, 0.5f};
  std::vector<int32_t> parents(40);
  std::vector<uint16_t> codes(40);
  for (int i = 0; i < 40; ++i) parents[i] = 39 - i, codes[i] = static_cast<uint16_t>(i % 7);
  std::vector<float> together(40), scores(40, -2);
  kernels::BeamSlots slots{.score = scores.data(), .parent = parents.data(), .code = codes.data(), .count = 40};
  RankRequest request{&slots, together.data()};
  RankBeams(ctx_, {.states = states.tensor, .weights = weights, .requests = {&request, 1}});
  for (int i = 0; i < 40; i += 13) {
    float alone = 0;
    kernels::BeamSlots one{.score = &scores[i], .parent = &parents[i], .code = &codes[i], .count = 1};
    RankRequest only{&one, &alone};
    RankBeams(ctx_, {.states = states.tensor, .weights = weights, .requests = {&only, 1}});
    EXPECT_EQ(alone, together[i]) << i;
  }
}

}  // namespace
}  // namespace beamline::backend
