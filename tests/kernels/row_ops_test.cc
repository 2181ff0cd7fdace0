// SPDX-License-Identifier: Apache-2.0
#include "cpu/row_ops.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "beamline/kernels/exp_non_positive.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::kernels {
namespace {

std::vector<RowOps> RowOpsVersions() {
  int count = 0;
  const RowOps* ops = AvailableRowOps(&count);
  return {ops, ops + count};
}

std::vector<float> RandomRow(std::mt19937& random, int count, float spread) {
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> row(count);
  for (float& x : row) x = normal(random);
  return row;
}

// Operands of every size, sums that cancel, and products halfway between two floats with next to nothing on either
// side, which rounding twice gets wrong.
TEST(RowOps, FusedInDoubleIsTheFusedInstruction) {
  std::mt19937 random(4);
  const auto value = [&](int exponents) {
    const float mantissa = std::ldexp(static_cast<float>(random() & 0xffffff), -23);
    return (random() % 2 == 0 ? -1 : 1) * std::ldexp(mantissa, static_cast<int>(random() % exponents) - exponents / 2);
  };
  const auto odd = [&] { return static_cast<float>(4097 + 2 * (random() % 840)); };  // the product of two has 25 bits
  int rounded_twice = 0;
  for (int trial = 0; trial < 400000; ++trial) {
    float a = value(60), b = value(60), c = value(120);
    if (trial % 3 == 1) c = -a * b;
    if (trial % 3 == 2) a = odd(), b = odd(), c = std::ldexp(value(2), -31);
    const float expected = std::fma(a, b, c);
    ASSERT_EQ(FusedInDouble::MultiplyAdd(a, b, c), expected) << a << " * " << b << " + " << c;
    if (static_cast<float>(static_cast<double>(a) * b + c) != expected) ++rounded_twice;
  }
  EXPECT_GT(rounded_twice, 10000);
}

TEST(RowOps, ExpIsWithinItsBound) {
  double worst = 0;
  for (uint32_t bits = 0x80000000u; bits <= 0xc2ae0000u; bits += 211) {  // 0 to -87
    float x;
    std::memcpy(&x, &bits, sizeof(x));
    const double expected = std::exp(static_cast<double>(x));
    const double ulp = std::ldexp(1.0, std::ilogb(static_cast<float>(expected)) - 23);
    worst = std::max(worst, std::abs(ExpNonPositive(x) - expected) / ulp);
  }
  EXPECT_LT(worst, 0.9);
  for (float x : {-87.01f, -1e9f, -1e30f, -std::numeric_limits<float>::infinity()}) EXPECT_EQ(ExpNonPositive(x), 0.0f);
  EXPECT_EQ(ExpNonPositive(0.0f), 1.0f);
}

TEST(RowOps, SumExpIsAccurate) {
  std::mt19937 random(1);
  for (int count : {1, 2, 31, 127, 128, 129, 256, 1000, 8192, 65536}) {
    for (float spread : {0.1f, 4.0f, 60.0f}) {
      const std::vector<float> row = RandomRow(random, count, spread);
      const float max = *std::max_element(row.begin(), row.end());
      double expected = 0;
      for (float x : row) expected += std::exp(static_cast<double>(x - max));
      EXPECT_NEAR(BestRowOps().sum_exp(row.data(), count, max, row.data()) / expected, 1.0, 4e-7)
          << count << " " << spread;
    }
  }
}

TEST(RowOps, SumExpCountsMinusInfinityAsZero) {
  std::vector<float> row(300, -std::numeric_limits<float>::infinity());
  row[7] = 2.0f;
  row[299] = 2.0f;
  for (const RowOps& ops : RowOpsVersions()) EXPECT_EQ(ops.sum_exp(row.data(), 300, 2.0f, row.data()), 2.0);
}

TEST(RowOps, ScanFindsTheMaximumAndEveryBadValue) {
  const float inf = std::numeric_limits<float>::infinity();
  std::mt19937 random(2);
  for (const RowOps& ops : RowOpsVersions()) {
    for (int count : {1, 31, 32, 33, 64, 100, 513}) {
      std::vector<float> row = RandomRow(random, count, 3.0f);
      float max = 0;
      EXPECT_TRUE(ops.scan(row.data(), count, &max));
      EXPECT_EQ(max, *std::max_element(row.begin(), row.end()));
      for (int at = 0; at < count; ++at) {
        const float kept = row[at];
        row[at] = std::numeric_limits<float>::quiet_NaN();
        EXPECT_FALSE(ops.scan(row.data(), count, &max)) << ops.name << " " << at;
        row[at] = inf;
        EXPECT_FALSE(ops.scan(row.data(), count, &max)) << ops.name << " " << at;
        row[at] = -inf;
        EXPECT_TRUE(ops.scan(row.data(), count, &max)) << ops.name << " " << at;
        row[at] = kept;
      }
    }
    float max = 0;
    EXPECT_TRUE(ops.scan(nullptr, 0, &max));
    EXPECT_EQ(max, -inf);
  }
}

// The instruction set changes the speed, never a bit of an answer.
TEST(RowOps, VersionsAgreeBitForBit) {
  std::mt19937 random(3);
  const std::vector<RowOps> versions = RowOpsVersions();
  for (int trial = 0; trial < 400; ++trial) {
    const int count = 1 + static_cast<int>(random() % 700);
    const std::vector<float> row = RandomRow(random, count, trial % 2 == 0 ? 2.0f : 40.0f);
    std::vector<uint16_t> codes;
    for (int code = 0; code < count && codes.size() < kScoreBlock; ++code) {
      if (trial % 3 == 0 || random() % 2 == 0) codes.push_back(static_cast<uint16_t>(code));
    }
    if (codes.empty()) codes.push_back(0);
    const int children = static_cast<int>(codes.size());
    float max = 0;
    versions[0].scan(row.data(), count, &max);
    const double sum = versions[0].sum_exp(row.data(), count, max, row.data());
    const RowScale scale{max, static_cast<float>(std::log(sum)), -1.25f};
    std::vector<float> log_probs(children), scores(children), gathered(children);
    const bool any =
        versions[0].score({row.data(), codes.data(), children, scale, -5.0f, log_probs.data(), scores.data()});
    versions[0].gather(row.data(), codes.data(), children, gathered.data());
    for (int i = 0; i < children; ++i) EXPECT_EQ(gathered[i], row[codes[i]]);
    EXPECT_EQ(any, std::any_of(scores.begin(), scores.end(), [](float s) { return s >= -5.0f; }));
    for (const RowOps& ops : versions) {
      float other_max = 0;
      ops.scan(row.data(), count, &other_max);
      EXPECT_EQ(other_max, max);
      EXPECT_EQ(ops.sum_exp(row.data(), count, max, row.data()), sum) << ops.name << " " << count;
      std::vector<float> other_log_probs(children), other_scores(children), other_gathered(children);
      EXPECT_EQ(
          ops.score({row.data(), codes.data(), children, scale, -5.0f, other_log_probs.data(), other_scores.data()}),
          any);
      ops.gather(row.data(), codes.data(), children, other_gathered.data());
      EXPECT_EQ(std::memcmp(other_log_probs.data(), log_probs.data(), children * sizeof(float)), 0);
      EXPECT_EQ(std::memcmp(other_scores.data(), scores.data(), children * sizeof(float)), 0);
      EXPECT_EQ(other_gathered, gathered);
    }
  }
}

}  // namespace
}  // namespace beamline::kernels
