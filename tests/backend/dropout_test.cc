// SPDX-License-Identifier: Apache-2.0
//
// Where a training pass drops values: of what sublayers keep inside (T5) only where the weights say so, and never
// outside of training. Weights are chosen such that the outputs are the dropped values themselves.
#include <ATen/ops/eye.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "backend/reference.h"

namespace beamline::backend {
namespace {

constexpr double kDrop = 0.25;

class DropoutTest : public testing::Test {
 protected:
  void SetUp() override {
    ctx_ = MakeContext("cpu", "fp32").value();
    ctx_.training = true;
    ctx_.dropout = kDrop;
    ctx_.generator = MakeGenerator(ctx_, 5);
  }
  // Of the values that should be `value`: all are 0 or value / keep, and about a quarter are 0.
  void ExpectDropped(const Tensor& values, double value) {
    const std::vector<float> all = DownloadFloats(ctx_, values);
    int64_t zeros = 0;
    for (const float one : all) {
      if (one == 0) {
        ++zeros;
      } else {
        ASSERT_NEAR(one, value / (1 - kDrop), 1e-4 * value);
      }
    }
    EXPECT_NEAR(static_cast<double>(zeros) / static_cast<double>(all.size()), kDrop, 0.05);
  }
  void ExpectAll(const Tensor& values, double value) {
    for (const float one : DownloadFloats(ctx_, values)) ASSERT_NEAR(one, value, 1e-6);
  }

  Context ctx_;
};

TEST_F(DropoutTest, OfRows) {
  const Tensor x = at::ones({64, 48});
  ExpectDropped(Dropout(ctx_, x), 1);
  ctx_.training = false;
  ExpectAll(Dropout(ctx_, x), 1);
}

TEST_F(DropoutTest, OfHiddenActivations) {
  FeedForwardWeights w{.gated = false, .activation = Activation::kRelu, .up = at::eye(48), .down = at::eye(48)};
  const Tensor x = at::ones({64, 48});
  ExpectAll(FeedForward(ctx_, x, w), 1);
  w.inner_dropout = true;
  ExpectDropped(FeedForward(ctx_, x, w), 1);
  ctx_.training = false;
  ExpectAll(FeedForward(ctx_, x, w), 1);
}

// Keys and queries are 0, so all visible keys are equally probable; values are the unit vectors.
TEST_F(DropoutTest, OfAttentionProbabilities) {
  const int64_t n = 64;
  const Tensor x = at::eye(n), zeros = at::zeros({n, n});
  SelfAttentionWeights self{.qkv = at::zeros({3 * n, n}), .out = at::eye(n), .scale = 1};
  self.qkv.narrow(0, 2 * n, n).copy_(at::eye(n));
  CrossAttentionWeights cross{.query = zeros, .out = at::eye(n), .scale = 1};
  const Tensor context = at::zeros({1, n, 2 * n});
  context.select(0, 0).narrow(1, n, n).copy_(at::eye(n));
  const Tensor mask = PaddingMask(ctx_, UploadInts(ctx_, std::vector<int32_t>(n, 0), {1, n}));
  for (const bool training : {true, false}) {
    for (const bool inner : {true, false}) {
      ctx_.training = training;
      self.inner_dropout = cross.inner_dropout = inner;
      const Tensor own = SelfAttention(ctx_, x, self, {mask}), other = CrossAttention(ctx_, x, cross, {context, mask});
      const Tensor last = CausalSelfAttention(ctx_, x, self, static_cast<int>(n)).narrow(0, n - 1, 1);
      const Tensor first = CausalSelfAttention(ctx_, x, self, static_cast<int>(n)).narrow(0, 0, 1).narrow(1, 1, n - 1);
      ExpectAll(first, 0);  // what comes later stays hidden
      if (training && inner) {
        ExpectDropped(own, 1.0 / static_cast<double>(n));
        ExpectDropped(other, 1.0 / static_cast<double>(n));
        EXPECT_LT(DownloadFloats(ctx_, last.min())[0], 1e-6);
      } else {
        ExpectAll(own, 1.0 / static_cast<double>(n));
        ExpectAll(other, 1.0 / static_cast<double>(n));
        ExpectAll(last, 1.0 / static_cast<double>(n));
      }
    }
  }
}

}  // namespace
}  // namespace beamline::backend
