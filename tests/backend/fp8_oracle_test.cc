// SPDX-License-Identifier: Apache-2.0
//
// FP8 on the aten backend: products with layers' weights are those of rows rounded to E4M3, and nothing else changes.
#include <cmath>

#include "backend/reference.h"

namespace beamline::backend {
namespace {

class Fp8Oracle : public OpsTest {
 protected:
  static constexpr int64_t kRows = 7, kIn = 48, kOut = 32;

  // Of a bf16 result of fp32 sums.
  void ExpectRounded(const Tensor& actual, const Matrix& expected) {
    const Matrix got = ToMatrix(actual, expected.rows, expected.cols);
    for (size_t i = 0; i < got.v.size(); ++i) {
      ASSERT_NEAR(got.v[i], expected.v[i], 0x1p-8 * std::abs(expected.v[i]) + 1e-4) << i;
    }
  }
  CrossAttentionWeights ContextWeights(const Pair& weight) { return {.key_value = weight.tensor}; }
};

INSTANTIATE_TEST_SUITE_P(Aten, Fp8Oracle, testing::Values(OpsCase{"cpu", "fp8"}));

TEST_P(Fp8Oracle, AProductIsThatOfItsRoundedRows) {
  Pair x = Random(kRows, kIn);
  const Pair weight = Random(2 * kOut, kIn, 0.3);
  std::vector<float> values = DownloadFloats(ctx_, x.tensor);
  for (int64_t i = 0; i < kIn; ++i) values[i] = 0;                 // a row of zeros, which has no scale
  for (int64_t i = 0; i < kIn; ++i) values[kIn + i] *= 1e-38f;     // and one below every normal number but its largest
  for (int64_t i = 0; i < kIn; ++i) values[2 * kIn + i] *= 1e20f;  // far beyond E4M3's largest
  x.tensor = UploadWeight(ctx_, values, {kRows, kIn});
  x.matrix = ToMatrix(x.tensor, kRows, kIn);
  const Matrix expected = MatMul(QuantizedRows(x.matrix), QuantizedRows(weight.matrix));
  ExpectRounded(ContextKeyValue(ctx_, x.tensor, ContextWeights(weight), {1}), expected);

  double off = 0, size = 0;  // of what bf16 would give
  const Matrix exact = MatMul(x.matrix, weight.matrix);
  for (int64_t r = 3; r < kRows; ++r) {
    for (int64_t c = 0; c < 2 * kOut; ++c) {
      off += std::pow(expected(r, c) - exact(r, c), 2);
      size += std::pow(exact(r, c), 2);
    }
  }
  EXPECT_GT(std::sqrt(off / size), 0.01) << "the test would not tell FP8 from bf16";
}

TEST_P(Fp8Oracle, OtherWidthsAndOtherProductsStayInBf16) {
  const Pair x = Random(kRows, kIn), narrow = Random(2 * 20, kIn), dense = Random(kOut, kIn);
  ExpectRounded(ContextKeyValue(ctx_, x.tensor, ContextWeights(narrow), {1}), MatMul(x.matrix, narrow.matrix));
  ExpectRounded(Dense(ctx_, x.tensor, {.weight = dense.tensor}), MatMul(x.matrix, dense.matrix));
}

TEST_P(Fp8Oracle, FeedForwardAndSharedExpertsRoundBothProducts) {
  const Pair x = Random(kRows, kIn), up = Random(2 * kOut, kIn, 0.3), down = Random(kIn, kOut, 0.3);
  const Matrix expected = LayerSwiGlu(x.matrix, up.matrix, down.matrix);
  ExpectNear(FeedForward(ctx_, x.tensor, {.up = up.tensor, .down = down.tensor}), expected);
  // One expert whose results are zeros: the shared one's are left.
  const Pair gate = Random(1, kIn);
  const Tensor zeros_up = UploadWeight(ctx_, std::vector<float>(2 * kOut * kIn), {1, 2 * kOut, kIn}),
               zeros_down = UploadWeight(ctx_, std::vector<float>(kIn * kOut), {1, kIn, kOut});
  const MoeWeights moe{.gate = gate.tensor,
                       .bias = UploadFloats(ctx_, std::vector<float>{0}, {1}),
                       .up = zeros_up,
                       .down = zeros_down,
                       .shared_up = up.tensor,
                       .shared_down = down.tensor};
  const Tensor shared = MoeFeedForward(ctx_, x.tensor, moe);
  const std::vector<float> a = DownloadFloats(ctx_, shared),
                           b = DownloadFloats(ctx_,
                                              FeedForward(ctx_, x.tensor, {.up = up.tensor, .down = down.tensor}));
  EXPECT_EQ(a, b);
}

TEST(Fp8OracleContext, IsMadeWhereItIsAskedForByName) {
  EXPECT_TRUE(MakeContext("cpu", "fp8", "aten").ok());
  EXPECT_FALSE(MakeContext("cpu", "fp8", "auto").ok()) << "too slow to be chosen";
  EXPECT_FALSE(MakeContext("cpu", "fp8", "cpu").ok());
  EXPECT_FALSE(MakeContext("cpu", "fp16", "aten").ok());
}

}  // namespace
}  // namespace beamline::backend
