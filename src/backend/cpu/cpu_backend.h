// SPDX-License-Identifier: Apache-2.0
//
// The op set for inference on the CPU: weights packed once, fused sublayers over blocks of rows that stay in the cache,
// attention with the beams of a request sharing each pass over its context, storage from a workspace. Ops that a
// request spends no time in are inherited from aten. No gradients, no dropout: training is refused.
//
// Activations are fp32. The products with the weights of attention, feed-forward and heads, which are all but a few
// percent of a request's arithmetic, run in the backend's precision; input layers, gates (a wrong expert is not a small
// error), norms, biases, attention's own products and softmax stay fp32: they cost little, and their errors would be
// larger than those of a weight's rounding.
//
// Every row is computed by itself in an order that depends on nothing but shapes of weights and the request's own
// context (kernels/packed_gemm.h, kernels/attention.h): answers are bit-identical whatever shares the batch and however
// many threads work on it.
//
// Masks are int32 [batch, tokens + groups]: the order of every token, then the limit of every group of query rows.
#pragma once

#include <memory>
#include <mutex>

#include "absl/functional/function_ref.h"
#include "backend/aten/aten_backend.h"
#include "backend/cpu/packed_weights.h"
#include "backend/cpu/worker_team.h"

namespace beamline::backend {

class WorkspacePool;

class CpuBackend : public AtenBackend {
 public:
  explicit CpuBackend(kernels::Precision precision = kernels::Precision::kFp32);

  // The cores of batches that begin from now on; those that run keep what they have. Backends may share a team.
  void SetTeam(std::shared_ptr<WorkerTeam> team);

  std::shared_ptr<BatchResources> BeginBatch(const std::shared_ptr<BatchWorkers>&) const override;
  ModelLimits GetModelLimits() const override;
  int64_t PackedWeightBytes() const override;
  int64_t packed_bytes() const { return packed_.bytes(); }
  void ReleaseUnusedWeights() const override { packed_.ReleaseUnused(); }

  int64_t RowsToPack(const Context&, int64_t tokens, int64_t) const override { return tokens; }

  Tensor UploadInts(Context&, absl::Span<const int32_t>, absl::Span<const int64_t> shape) const override;
  Tensor EmbedFeatures(Context&, absl::Span<const FeatureTable>, FeatureFusion, const Tensor& features) const override;
  Tensor EmbedStep(Context&, const CodeEmbedding&, const LevelRows& of, const Tensor& codes) const override;
  Tensor TrunkRows(Context&, const Tensor& trunk, const LevelRows& of, int64_t rows) const override;
  Tensor GatedFusion(Context&, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) const override;
  Tensor RmsNorm(Context&, const Tensor& x, const Tensor& weight, double epsilon) const override;
  Tensor Dense(Context&, const Tensor& x, const DenseWeights&, Activation) const override;
  Tensor FeedForward(Context&, const Tensor& x, const FeedForwardWeights&) const override;
  Tensor MoeFeedForward(Context&, const Tensor& x, const MoeWeights&) const override;
  Tensor Residual(Context&, const Tensor& x, const Tensor& delta) const override;
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
  Tensor JoinRows(Context&, absl::Span<const Tensor> parts) const override;
  Tensor StackPadded(Context&, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill) const override;
  void SelectBeams(Context&, const SelectBeamsArgs&) const override;
  void RankBeams(Context&, const RankBeamsArgs&) const override;

 private:
  using Packed = std::shared_ptr<const PackedWeight>;
  // In the backend's precision.
  Packed Pack(const Tensor& weight, bool gated = false) const;
  Packed PackRows(const Tensor& weight, int64_t first, int64_t rows, bool gated = false) const;

  // [begin, end) in consecutive blocks of at most `block` rows, split among the cores the batch has where the work is
  // worth a fork. `f(begin, end, scratch)`: scratch is the thread's own, `scratch_floats` long.
  struct RowLoop {
    int64_t rows = 0;
    int64_t block = 0;
    double flops_per_row = 0;
    int64_t scratch_floats = 0;
  };
  void ForRowBlocks(Context&, const RowLoop&, absl::FunctionRef<void(int64_t, int64_t, float*)> f) const;
  // args.c = activation(args.a w + args.bias) of all args.m rows, on all cores of the batch.
  void Multiply(Context&, const PackedWeight& w, const kernels::GemmArgs& args) const;
  struct FeedForwardShape {
    Packed up, down;
    kernels::RowActivation activation;
  };
  void RunFeedForward(Context&, const Tensor& x, const FeedForwardShape&, float* y) const;
  static constexpr int64_t kRowsToSplit = 8;  // fewer rows: threads share the columns of a product instead

  const kernels::Precision precision_;
  mutable PackedWeights packed_;
  mutable std::mutex mu_;
  std::shared_ptr<WorkerTeam> team_;  // guarded by mu_
  const std::shared_ptr<WorkspacePool> workspaces_;
};

}  // namespace beamline::backend
