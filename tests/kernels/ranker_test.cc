// SPDX-License-Identifier: Apache-2.0
#include "beamline/kernels/ranker.h"

#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace beamline::kernels {
namespace {

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct Shape {
  int32_t count, width, heads, parents, codes;
};

// A request's candidates, drawn.
struct Candidates {
  explicit Candidates(const Shape& s) : shape(s), random(s.width + s.heads) {
    states = Values(s.parents * s.width, 1);
    code_table = Values(s.codes * s.width, 1);
    head = Values(s.heads * s.width, 0.3F);
    bias = Values(s.heads, 1);
    weight = Values(s.heads, 1);
    scores = Values(s.count, 4);
    values.assign(s.count, 0);
    for (int32_t i = 0; i < s.count; ++i) {
      parents.push_back(static_cast<int32_t>(random() % s.parents));
      codes.push_back(static_cast<uint16_t>(random() % s.codes));
    }
  }
  std::vector<float> Values(int32_t count, float scale) {
    std::normal_distribution<float> normal(0, scale);
    std::vector<float> drawn(count);
    for (float& one : drawn) one = normal(random);
    return drawn;
  }
  RankCandidatesArgs Args() {
    return {.count = shape.count,
            .width = shape.width,
            .heads = shape.heads,
            .states = states.data(),
            .code_table = code_table.data(),
            .head = head.data(),
            .bias = bias.data(),
            .weight = weight.data(),
            .parents = parents.data(),
            .codes = codes.data(),
            .score_weight = 0.75F,
            .scores = scores.data(),
            .values = values.data()};
  }
  // The value of candidate i, and how far from it fp32 may be.
  std::pair<double, double> Expected(int32_t i) const {
    double value = 0.75 * scores[i], allowed = 0x1p-22 * std::abs(value);
    for (int32_t h = 0; h < shape.heads; ++h) {
      double logit = bias[h], size = std::abs(logit);
      for (int32_t j = 0; j < shape.width; ++j) {
        const double x = double{states[parents[i] * shape.width + j]} + code_table[codes[i] * shape.width + j];
        const double term = x * Sigmoid(x) * head[h * shape.width + j];
        logit += term;
        size += std::abs(term);
      }
      value += weight[h] * Sigmoid(logit);
      // A slope of at most a quarter; sums of width / 8 terms side by side, and a few roundings of each term.
      allowed += std::abs(weight[h]) * 0x1p-24 * (size * (shape.width / 8.0 + 16) / 4 + 16);
    }
    return {value, allowed};
  }

  Shape shape;
  std::mt19937 random;
  std::vector<float> states, code_table, head, bias, weight, scores, values;
  std::vector<int32_t> parents;
  std::vector<uint16_t> codes;
};

TEST(RankCandidatesCpu, AgainstDoublePrecision) {
  for (const Shape& shape : {Shape{1, 8, 1, 1, 1}, Shape{7, 24, 2, 3, 5}, Shape{64, 256, 8, 64, 512},
                             Shape{3, kMaxRankerWidth, kMaxRankerHeads, 2, 2}}) {
    Candidates candidates(shape);
    RankCandidatesCpu(candidates.Args());
    for (int32_t i = 0; i < shape.count; ++i) {
      const auto [value, allowed] = candidates.Expected(i);
      ASSERT_NEAR(candidates.values[i], value, allowed) << "width " << shape.width << ", candidate " << i;
    }
  }
}

TEST(RankCandidatesCpu, ExtremeLogitsAreProbabilities) {
  Candidates candidates({2, 8, 2, 1, 2});
  candidates.bias = {1e30F, -1e30F};
  candidates.weight = {3, 5};
  candidates.scores = {-1, -2};
  candidates.states[0] = -1e30F;  // silu of it is 0, not NaN
  RankCandidatesCpu(candidates.Args());
  EXPECT_EQ(candidates.values, (std::vector<float>{2.25F, 1.5F}));
}

}  // namespace
}  // namespace beamline::kernels
