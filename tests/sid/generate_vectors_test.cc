// SPDX-License-Identifier: Apache-2.0
#include "sid/generate_vectors.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::sid {
namespace {

using ::testing::HasSubstr;

double Distance(const FloatMatrix& vectors, int64_t a, int64_t b) {
  double sum = 0;
  for (int64_t i = 0; i < vectors.cols; ++i) {
    const double difference = static_cast<double>(vectors.row(a)[i]) - vectors.row(b)[i];
    sum += difference * difference;
  }
  return sum / static_cast<double>(vectors.cols);
}

TEST(GenerateVectors, AFunctionOfItsOptions) {
  const auto first = GenerateVectors({.items = 500, .dim = 7, .seed = 3});
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->vectors.rows, 500);
  EXPECT_EQ(first->vectors.cols, 7);
  EXPECT_EQ(first->items.front(), 1u);
  EXPECT_EQ(first->items.back(), 500u);
  EXPECT_EQ(GenerateVectors({.items = 500, .dim = 7, .seed = 3})->vectors.values, first->vectors.values);
  EXPECT_NE(GenerateVectors({.items = 500, .dim = 7, .seed = 4})->vectors.values, first->vectors.values);
}

// Two items of one style differ by noise alone (2 * .3^2 a dimension), two of other topics by all (2 * (1 + .25 +
// .09)): there is something to cluster.
TEST(GenerateVectors, ItemsOfOneStyleAreClose) {
  const auto items = GenerateVectors({.items = 1000, .dim = 64});
  ASSERT_TRUE(items.ok()) << items.status();
  int same_style = 0;
  double all = 0;
  constexpr int kPairs = 1000 * 999 / 2;
  for (int64_t a = 0; a < 1000; ++a) {
    for (int64_t b = 0; b < a; ++b) {
      const double distance = Distance(items->vectors, a, b);
      all += distance / kPairs;
      if (distance < 0.4) ++same_style;
    }
  }
  EXPECT_NEAR(all, 2 * (1 + 0.25 + 0.09), 0.1);
  EXPECT_NEAR(same_style, kPairs / (512.0 * 16), 30);
}

TEST(GenerateVectors, NamesTheOptionOutOfRange) {
  EXPECT_THAT(std::string(GenerateVectors({.items = 0}).status().message()), HasSubstr("items: is 0"));
  EXPECT_THAT(std::string(GenerateVectors({.items = 1, .dim = 5000}).status().message()), HasSubstr("dim: is 5000"));
  EXPECT_EQ(GenerateVectors({.items = 100'000'000, .dim = 4096}).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace beamline::sid
