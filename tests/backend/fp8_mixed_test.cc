// SPDX-License-Identifier: Apache-2.0
//
// fp8_mixed: self-attention has the bits of bf16, everything else those of fp8, and these differ. Under WithoutFp8
// all have those of bf16.
#include <cstdlib>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gmock/gmock.h>

#include "backend/backend.h"
#include "backend/reference.h"

namespace beamline::backend {
namespace {

constexpr int64_t kRows = 8, kDim = 32, kHeads = 2;
constexpr const char* kDtypes[] = {"bf16", "fp8", "fp8_mixed"};

struct Answers {
  std::vector<std::vector<float>> self, other;
};

class Fp8MixedTest : public testing::TestWithParam<OpsCase> {
 protected:
  Tensor Random(int64_t rows, int64_t columns) {
    std::normal_distribution<float> noise(0, 0.3F);
    std::vector<float> values(rows * columns);
    for (float& value : values) value = noise(rng_);
    return UploadWeight(ctx_, values, {rows, columns});
  }

  // Of the same values in every context.
  Answers All() {
    rng_.seed(3);
    const Tensor x = Random(kRows, kDim);
    const SelfAttentionWeights self{.qkv = Random(3 * kDim, kDim), .out = Random(kDim, kDim), .heads = kHeads};
    const CrossAttentionWeights cross{
        .query = Random(kDim, kDim), .key_value = Random(2 * kDim, kDim), .out = Random(kDim, kDim), .heads = kHeads};
    const FeedForwardWeights ffn{.up = Random(2 * kDim, kDim), .down = Random(kDim, kDim)};
    const Tensor order = UploadInts(ctx_, std::vector<int32_t>{0, 1, 2, 3, 4, 5, 6, 7}, {1, kRows});
    const Tensor norm = UploadFloats(ctx_, std::vector<float>(kDim, 1), {kDim});
    const auto values = [&](const Tensor& y) { return DownloadFloats(ctx_, y); };
    Answers all;
    // After a norm, too, whose rows the cuda backend quantises on its way.
    for (const Tensor& rows : {x, RmsNorm(ctx_, x, norm, 1e-6)}) {
      all.self.push_back(values(SelfAttention(ctx_, rows, self, {PaddingMask(ctx_, order)})));
      all.self.push_back(values(CausalSelfAttention(ctx_, rows, self, 4)));
      LineageCache cache;
      all.self.push_back(values(LineageAttention(ctx_, rows, self, {1, Tensor(), false, cache})));
      const Tensor context = ContextKeyValue(ctx_, rows, cross, {1});
      all.other.push_back(values(context));
      all.other.push_back(values(CrossAttention(ctx_, rows, cross, {context, PaddingMask(ctx_, order)})));
      all.other.push_back(values(FeedForward(ctx_, rows, ffn)));
    }
    return all;
  }

  Context ctx_;
  std::mt19937_64 rng_;
};

#if defined(BEAMLINE_TEST_CUDA)
INSTANTIATE_TEST_SUITE_P(Cuda, Fp8MixedTest, testing::Values(OpsCase{"cuda", "", "cuda"}));
#else
INSTANTIATE_TEST_SUITE_P(Aten, Fp8MixedTest, testing::Values(OpsCase{"cpu", ""}));
#endif

TEST_P(Fp8MixedTest, IsBf16InSelfAttentionAndFp8Elsewhere) {
  std::vector<Answers> answers, wide;
  std::vector<std::string> tunings;
  for (const char* dtype : kDtypes) {
    const auto ctx = MakeTestContext(GetParam().device, dtype, GetParam().backend);
    if (!ctx.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << ctx.status();
    ASSERT_TRUE(ctx.ok()) << ctx.status();
    // The last one multiplies by the algorithms of the other two: a GPU's timer chooses, and sums may differ.
    for (const std::string& tuning : tunings) ASSERT_TRUE(ctx->backend->ImportTuning(tuning).ok());
    ctx_ = BeginBatch(*ctx);
    answers.push_back(All());
    {
      const WithoutFp8 on(ctx_, /*on=*/true);
      const WithoutFp8 off(ctx_, /*on=*/false);
      wide.push_back(All());
    }
    EXPECT_EQ(All().other, answers.back().other) << "FP8 again";
    if (std::string text = ctx->backend->ExportTuning(); !text.empty()) tunings.push_back(std::move(text));
  }
  const auto& [bf16, fp8, mixed] = std::tie(answers[0], answers[1], answers[2]);
  EXPECT_EQ(mixed.self, bf16.self);
  EXPECT_EQ(mixed.other, fp8.other);
  for (size_t i = 0; i < bf16.self.size(); ++i) {
    EXPECT_NE(bf16.self[i], fp8.self[i]) << "nothing would tell one from the other";
    EXPECT_NE(bf16.other[i], fp8.other[i]) << "nothing would tell one from the other";
  }
  for (const Answers& of : wide) {
    EXPECT_EQ(of.self, bf16.self);
    EXPECT_EQ(of.other, bf16.other);
  }
}

}  // namespace
}  // namespace beamline::backend
