// SPDX-License-Identifier: Apache-2.0
//
// The op set on ATen: any device, differentiable, written for clarity. It is the oracle that faster backends are tested
// against, and the backend the trainer uses. Stateless.
//
// One made for FP8 is the oracle of products in E4M3 (cuda/fp8.h): rows and weights of these products are rounded as
// they are there, multiplied in fp32, and everything else is as without. What a trained model loses by FP8 can be told
// with it where there is no GPU; slowly, and without gradients.
#pragma once

#include "backend/backend.h"
#include "backend/fp8_products.h"

namespace beamline::backend {

class AtenBackend : public Backend {
 public:
  explicit AtenBackend(Fp8Products fp8 = Fp8Products::kNone) : fp8_(fp8) {}

  Tensor UploadInts(Context&, absl::Span<const int32_t>, absl::Span<const int64_t> shape) const override;
  Tensor UploadFloats(Context&, absl::Span<const float>, absl::Span<const int64_t> shape) const override;
  Tensor UploadWeight(Context&, absl::Span<const float>, absl::Span<const int64_t> shape) const override;
  std::vector<int32_t> DownloadInts(Context&, const Tensor& ints) const override;
  std::vector<float> DownloadFloats(Context&, const Tensor& floats) const override;
  Tensor EmbedFeatures(Context&, absl::Span<const FeatureTable>, FeatureFusion, const Tensor& features) const override;
  Tensor JoinTokens(Context&, absl::Span<const Tensor> pathways, const Tensor& position_table,
                    const Tensor& positions) const override;
  Tensor EmbedPrefix(Context&, const CodeEmbedding&, const Tensor& codes, int steps) const override;
  Tensor EmbedStep(Context&, const CodeEmbedding&, const LevelRows& of, const Tensor& codes) const override;
  Tensor EmbedPositions(Context&, const Tensor& positions, int64_t groups) const override;
  Tensor TrunkRows(Context&, const Tensor& trunk, const LevelRows& of, int64_t rows) const override;
  Tensor GatedFusion(Context&, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) const override;
  Tensor RmsNorm(Context&, const Tensor& x, const Tensor& weight, double epsilon) const override;
  Tensor Dense(Context&, const Tensor& x, const DenseWeights&, Activation) const override;
  Tensor FeedForward(Context&, const Tensor& x, const FeedForwardWeights&) const override;
  Tensor MoeFeedForward(Context&, const Tensor& x, const MoeWeights&) const override;
  Tensor Residual(Context&, const Tensor& x, const Tensor& delta) const override;
  Tensor Dropout(Context&, const Tensor& x) const override;
  Tensor LevelHead(Context&, const Tensor& x, const HeadWeights&, const LevelRows& of) const override;
  Tensor VisibilityMask(Context&, const Tensor& order, const Tensor& limit, int repeat) const override;
  Tensor PaddingMask(Context&, const Tensor& order) const override;
  Tensor SelfAttention(Context&, const Tensor& x, const SelfAttentionWeights&, const TokenView& view) const override;
  Tensor GatherRows(Context&, const Tensor& x, const Tensor& rows) const override;
  Tensor CausalSelfAttention(Context&, const Tensor& x, const SelfAttentionWeights&, int length) const override;
  Tensor ContextKeyValue(Context&, const Tensor& x, const CrossAttentionWeights&, int64_t batch) const override;
  Tensor CrossAttention(Context&, const Tensor& x, const CrossAttentionWeights&,
                        const ContextView& context) const override;
  Tensor ExtendLineage(Context&, const Tensor& lineage, const Tensor& parents) const override;
  Tensor LineageAttention(Context&, const Tensor& x, const SelfAttentionWeights&,
                          const LineageStep& step) const override;
  Tensor TakeVisible(Context&, const Tensor& x, const Tensor& order, int64_t row) const override;
  Tensor StackPadded(Context&, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill) const override;
  Tensor TakeRows(Context&, const Tensor& x, int64_t first, int64_t count) const override;
  Tensor JoinRows(Context&, absl::Span<const Tensor> parts) const override;
  void SelectBeams(Context&, const SelectBeamsArgs&) const override;
  void RankBeams(Context&, const RankBeamsArgs&) const override;
  Tensor RankerLogits(Context&, const Tensor& states, const RankerWeights&, const Tensor& codes) const override;

 private:
  // x [rows, in] with a weight of cross-attention or feed-forward, and of self-attention.
  Tensor LayerProduct(const Context& ctx, const Tensor& x, const Tensor& weight) const;
  Tensor SelfProduct(const Context& ctx, const Tensor& x, const Tensor& weight) const;

  const Fp8Products fp8_;

 protected:
  // Requests [begin, end) of args, whose logits are fp32 on the host, each row contiguous.
  static void SelectOnHost(const SelectBeamsArgs& args, int64_t begin, int64_t end);
};

}  // namespace beamline::backend
