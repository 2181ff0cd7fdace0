// SPDX-License-Identifier: Apache-2.0
//
// Every version of the vector kernels against double precision, and the promise that a row's result depends on nothing
// but the row: not on its company, its place, the columns asked for together, or padding.
#include "beamline/kernels/vector_ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace beamline::kernels {
namespace {

using Floats = std::vector<float>;

class VectorOpsTest : public testing::TestWithParam<int> {
 protected:
  const VectorOps& ops() const {
    int count = 0;
    return AvailableVectorOps(&count)[GetParam()];
  }
  Floats Random(int64_t count, float scale = 1) {
    std::normal_distribution<float> noise(0, scale);
    Floats values(count);
    for (float& value : values) value = noise(rng_);
    return values;
  }
  std::mt19937_64 rng_{5};
};

std::vector<int> InstructionSets() {
  int count = 0;
  AvailableVectorOps(&count);
  std::vector<int> versions(count);
  for (int i = 0; i < count; ++i) versions[i] = i;
  return versions;
}

INSTANTIATE_TEST_SUITE_P(Versions, VectorOpsTest, testing::ValuesIn(InstructionSets()), [](const auto& info) {
  int count = 0;
  return std::string(AvailableVectorOps(&count)[info.param].name);
});

TEST_P(VectorOpsTest, RowFunctionsAgainstDouble) {
  for (const int64_t d : {1, 5, 16, 100, 129}) {
    const int64_t rows = 3;
    const Floats x = Random(rows * d), w = Random(d), b = Random(rows * d);
    Floats norm(rows * d), sum(rows * d), scaled = b, gated(rows * d);
    ops().rms_norm({rows, d, x.data(), w.data(), 1e-6f, norm.data()});
    ops().add(x.data(), b.data(), rows * d, sum.data());
    ops().add_scaled(x.data(), 0.7f, rows * d, scaled.data());
    ops().add_gated({rows * d, x.data(), b.data(), x.data(), gated.data()});
    for (int64_t r = 0; r < rows; ++r) {
      double square = 0;
      for (int64_t i = 0; i < d; ++i) square += static_cast<double>(x[r * d + i]) * x[r * d + i];
      for (int64_t i = r * d; i < (r + 1) * d; ++i) {
        const double expected = x[i] / std::sqrt(square / static_cast<double>(d) + 1e-6) * w[i - r * d];
        EXPECT_NEAR(norm[i], expected, 1e-6 * (1 + std::abs(expected)));
        EXPECT_EQ(sum[i], x[i] + b[i]);
        EXPECT_NEAR(scaled[i], b[i] + 0.7f * x[i], 1e-6);
        EXPECT_NEAR(gated[i], x[i] + x[i] / (1 + std::exp(-static_cast<double>(b[i]))), 2e-6);
      }
    }
  }
}

struct Sequence {
  int heads;
  int64_t dim, tokens, rows, repeat;
  bool bias;
};

struct Attended {
  Floats query, key_value, bias;
  std::vector<int32_t> order, limit;
  int64_t bias_step = 0;
};

Floats Attend(const VectorOps& ops, const Sequence& s, const Attended& in, int64_t first, int64_t rows,
              int64_t tokens) {
  const int64_t inner = s.heads * s.dim;
  Floats out(rows * inner, 9.0f), scratch(ContextAttentionScratch(tokens, s.dim));
  ops.context_attention({.shape = {s.heads, s.dim, 0.5f},
                         .query = in.query.data() + first * inner,
                         .query_step = inner,
                         .first_row = first,
                         .rows = rows,
                         .key_value = in.key_value.data(),
                         .key_value_step = 2 * inner,
                         .tokens = tokens,
                         .order = in.order.data(),
                         .limit = in.limit.data(),
                         .repeat = s.repeat,
                         .bias = s.bias ? in.bias.data() + s.tokens - 1 : nullptr,
                         .bias_step = in.bias_step,
                         .scratch = scratch.data(),
                         .out = out.data()});
  return out;
}

TEST_P(VectorOpsTest, ContextAttentionAgainstDouble) {
  for (const Sequence& s : {Sequence{1, 16, 1, 1, 1, false}, Sequence{3, 5, 7, 18, 3, false},
                            Sequence{2, 32, 33, 40, 1, true}, Sequence{2, 24, 12, 5, 5, true}}) {
    const int64_t inner = s.heads * s.dim;
    Attended in;
    in.query = Random(s.rows * inner);
    in.key_value = Random(s.tokens * 2 * inner);
    in.bias_step = s.tokens + s.rows + 16;
    in.bias = Random(s.heads * in.bias_step);
    for (int64_t j = 0; j < s.tokens; ++j) in.order.push_back(static_cast<int32_t>(rng_() % 4));
    for (int64_t r = 0; r < s.rows; ++r) in.limit.push_back(static_cast<int32_t>(rng_() % 5) - 1);  // -1 sees nothing
    const Floats out = Attend(ops(), s, in, 0, s.rows, s.tokens);
    for (int64_t r = 0; r < s.rows; ++r) {
      for (int h = 0; h < s.heads; ++h) {
        std::vector<double> p(s.tokens, 0);
        double sum = 0;
        for (int64_t j = 0; j < s.tokens; ++j) {
          if (in.order[j] > in.limit[r / s.repeat]) continue;
          double score = 0;
          for (int64_t i = 0; i < s.dim; ++i) {
            score +=
                static_cast<double>(in.query[r * inner + h * s.dim + i]) * in.key_value[j * 2 * inner + h * s.dim + i];
          }
          score *= 0.5;
          if (s.bias) score += in.bias[h * in.bias_step + s.tokens - 1 + r - j];
          sum += p[j] = std::exp(score);
        }
        for (int64_t i = 0; i < s.dim; ++i) {
          double expected = 0;
          for (int64_t j = 0; j < s.tokens && sum > 0; ++j) {
            expected += p[j] / sum * in.key_value[j * 2 * inner + inner + h * s.dim + i];
          }
          ASSERT_NEAR(out[r * inner + h * s.dim + i], expected, 1e-5) << r << " " << h << " " << i;
        }
      }
    }
  }
}

TEST_P(VectorOpsTest, AttentionRowsDependOnNeitherCompanyNorPadding) {
  const Sequence s{2, 20, 30, 50, 1, false};
  const int64_t inner = s.heads * s.dim;
  Attended in;
  in.query = Random(s.rows * inner);
  in.key_value = Random(s.tokens * 2 * inner);
  in.limit.assign(s.rows, 3);
  for (int64_t j = 0; j < s.tokens; ++j) in.order.push_back(j < 21 ? static_cast<int32_t>(j % 5) : 100);
  const Floats together = Attend(ops(), s, in, 0, s.rows, s.tokens);
  for (int64_t rows = 1; rows <= s.rows; ++rows) {
    const int64_t first = rows * 11 % (s.rows - rows + 1);
    const Floats alone = Attend(ops(), s, in, first, rows, rows % 2 == 0 ? 21 : s.tokens);
    ASSERT_EQ(std::memcmp(alone.data(), together.data() + first * inner, alone.size() * sizeof(float)), 0) << rows;
  }
}

TEST_P(VectorOpsTest, LineageAttentionAgainstDouble) {
  const int64_t rows = 7;
  for (const int64_t dim : {16, 5, 40}) {
    for (const int steps : {0, 1, 3, kMaxLineageSteps}) {
      const int heads = 2;
      const int64_t inner = heads * dim;
      const Floats query = Random(rows * inner), own = Random(rows * 2 * inner), bias = Random(heads * (steps + 1));
      std::vector<Floats> past;
      std::vector<const float*> pointers;
      for (int step = 0; step < steps; ++step) past.push_back(Random(4 * 2 * inner));
      for (const Floats& step : past) pointers.push_back(step.data());
      std::vector<int32_t> lineage(rows * steps);
      for (int32_t& row : lineage) row = static_cast<int32_t>(rng_() % 4);
      Floats out(rows * inner);
      ops().lineage_attention({.shape = {heads, dim, 0.3f},
                               .query = query.data(),
                               .own = own.data(),
                               .rows = rows,
                               .steps = steps,
                               .past = pointers.data(),
                               .lineage = lineage.data(),
                               .bias = steps % 2 == 1 ? bias.data() : nullptr,
                               .out = out.data()});
      for (int64_t r = 0; r < rows; ++r) {
        for (int h = 0; h < heads; ++h) {
          std::vector<double> p;
          std::vector<const float*> seen;
          double sum = 0;
          for (int j = 0; j <= steps; ++j) {
            seen.push_back(j < steps ? past[j].data() + lineage[r * steps + j] * 2 * inner
                                     : own.data() + r * 2 * inner);
            double score = 0;
            for (int64_t i = 0; i < dim; ++i) {
              score += 0.3f * static_cast<double>(query[r * inner + h * dim + i]) * seen[j][h * dim + i];
            }
            if (steps % 2 == 1) score += bias[h * (steps + 1) + j];
            p.push_back(std::exp(score));
            sum += p.back();
          }
          for (int64_t i = 0; i < dim; ++i) {
            double expected = 0;
            for (int j = 0; j <= steps; ++j) expected += p[j] / sum * seen[j][inner + h * dim + i];
            ASSERT_NEAR(out[r * inner + h * dim + i], expected, 1e-5) << dim << " " << steps << " " << r;
          }
        }
      }
    }
  }
}

// Elementwise results do not depend on the machine.
TEST(VectorOps, VersionsAgreeOnElementwiseBits) {
  int count = 0;
  const VectorOps* versions = AvailableVectorOps(&count);
  std::mt19937_64 rng(3);
  std::normal_distribution<float> noise(0, 3);
  Floats x(3 * 77), w(77);
  for (float& value : x) value = noise(rng);
  for (float& value : w) value = noise(rng);
  std::vector<Floats> norms, gates;
  for (int v = 0; v < count; ++v) {
    norms.emplace_back(x.size());
    gates.emplace_back(x.size());
    versions[v].rms_norm({3, 77, x.data(), w.data(), 1e-6f, norms.back().data()});
    versions[v].add_gated({static_cast<int64_t>(x.size()), x.data(), x.data(), x.data(), gates.back().data()});
  }
  for (int v = 1; v < count; ++v) {
    EXPECT_EQ(norms[v], norms[0]) << versions[v].name;
    EXPECT_EQ(gates[v], gates[0]) << versions[v].name;
  }
}

}  // namespace
}  // namespace beamline::kernels
