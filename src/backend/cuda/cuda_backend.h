// SPDX-License-Identifier: Apache-2.0
//
// The op set for inference on a GPU: our kernels (kernels/include/beamline/kernels/*_cuda.h) and cuBLASLt, on the
// stream of the batch. Tensors are fp32, bf16 or fp16; norms' statistics, softmax, sums, logits and scores are fp32. No
// gradients, no dropout: training is refused. Ops run inside of a batch (BeginBatch); weights are uploaded outside.
// One made for FP8 multiplies with layers' weights in E4M3 (fp8.h); its tensors are the context's dtype.
//
// Widths (d_model, head_dim, feed-forward and feature widths) are multiples of 8, heads at most 256 wide; of at most
// 256 experts a row takes at most 16; a token has at most 32 feature columns. Other models are refused by the first op
// that meets one, which is at warm-up.
//
// Every row is computed by itself, in an order that depends on the weights' shapes and the request's own context alone
// (launch.h, algorithms.h): answers do not depend on what shares the batch.
//
// Masks are int32 [batch, tokens + groups + 1] with three parts one behind the other: the order of every token, the
// limit of every group of query rows, and how many tokens each request has to look at. A lineage has the shape of the
// op set, [batch, rows, steps], and one plane of all rows per step in memory.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "backend/backend.h"
#include "backend/cuda/cuda_batch.h"
#include "backend/cuda/device_fault.h"
#include "backend/cuda/fp8.h"
#include "backend/cuda/kept_memory.h"
#include "backend/cuda/trie_cache.h"

namespace beamline::backend::cuda {

class CudaBackend final : public Backend {
 public:
  // `where` is what tensors call their device. FAILED_PRECONDITION or INTERNAL where the device cannot be used.
  static absl::StatusOr<std::unique_ptr<CudaBackend>> Make(const CublasLt& lt, c10::Device where, Fp8 fp8 = {});
  ~CudaBackend() override;

  ModelLimits GetModelLimits() const override {
    return CudaModelLimits(fp8_.on() && fp8_.scaling == Fp8Scaling::kAfter);
  }
  std::shared_ptr<BatchResources> BeginBatch(const std::shared_ptr<BatchWorkers>& workers) const override;
  std::shared_ptr<BatchWorkers> NewWorkers() const override;
  std::optional<c10::Stream> StreamOf(Context& ctx) const override;
  bool RunsBehindTheHost() const override { return true; }
  int RunsUntilWarm() const override { return 2; }  // the second time a pass is captured (graphs.h)
  // Few sizes where passes become graphs.
  int64_t RoomFor(const Context&, int64_t size, int64_t fewest) const override;
  int64_t RowsToPack(const Context&, int64_t tokens, int64_t padded) const override;
  bool SearchesOnDevice() const override { return true; }
  int64_t PackedWeightBytes() const override { return fp8_.on() ? 1 : 0; }
  void ReleaseUnusedWeights() const override { fp8_weights_.ReleaseUnused(); }
  void ReleaseFreeMemory() const override { kept_.ReleaseFree(); }
  int64_t fp8_weights() const { return fp8_weights_.size(); }
  // The choice of algorithms.
  std::string TuningName() const override;
  std::string ExportTuning() const override { return algorithms_->Export(); }
  absl::Status ImportTuning(absl::string_view text) const override { return algorithms_->Import(text); }
  absl::Status AdoptTuning(absl::string_view text) const override { return algorithms_->Adopt(text); }
  std::optional<DeviceMemory> GetDeviceMemory() const override;
  std::optional<DevicePasses> GetDevicePasses() const override;
  absl::Status fault() const override { return fault_->status(); }
  Algorithms& algorithms() const { return *algorithms_; }

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
  std::vector<Tensor> TakeAllVisible(Context&, absl::Span<const Tensor> xs, const Tensor& order,
                                     int64_t row) const override;
  std::vector<Tensor> StackAllPadded(Context&, absl::Span<const Tensor> rows, int64_t stacks,
                                     int64_t capacity) const override;
  void SelectBeams(Context&, const SelectBeamsArgs&) const override;
  void RankBeams(Context&, const RankBeamsArgs&) const override;
  std::vector<Tensor> RunPass(Context&, const std::string& pass, absl::Span<const Tensor> inputs,
                              PassBody body) const override;
  std::unique_ptr<DeviceSearch> BeginSearch(Context&, absl::Span<const DeviceSearchRequest>) const override;

 private:
  struct Device {
    c10::Device where;
    std::string name;
    bool warpgroups = false;  // kernels with wgmma
  };
  CudaBackend(const CublasLt& lt, cublasLtHandle_t handle, Device device, Fp8 fp8);

  struct HostArray {
    const void* values = nullptr;
    int64_t count = 0;
    c10::ScalarType dtype;
  };
  Tensor Upload(Context&, const HostArray& from, absl::Span<const int64_t> shape) const;

  // out [rows, n] = epilogue(scale * x weight + bias), rows of x `x_step` apart.
  struct Rows {
    const void* x = nullptr;
    int64_t count = 0;
    int64_t step = 0;
  };
  struct ProductOptions {
    Tensor weight;
    Tensor bias;
    Epilogue epilogue = Epilogue::kNone;
    float alpha = 1;
    bool add = false;
    int64_t first_column = 0;  // of the weight's; 0 and its width: all
    int64_t columns = 0;
    int64_t out_step = 0;  // 0: as wide as the result
    std::optional<kernels::ActivationKind> gate;
    Tensor ungated;  // [x.count, n] with a gate: what a kernel that knows none gives
  };
  void Multiply(Context&, const Rows& x, const ProductOptions&, const Tensor& out) const;
  // The logits' parts: fp32 [rows, kernels::RowParts(vocab), 2].
  Tensor FusedHead(Context&, const Rows& x, const HeadWeights&, const Tensor& logits) const;
  struct ProductShape {
    ProductKind kind;
    ProductSteps steps;
    int64_t rows = 0;
  };
  void Run(Context&, const ProductShape&, const ProductArrays&) const;
  // out [x.count, n] with a weight of cross-attention or feed-forward, and of self-attention: in FP8, if that
  // is on, and not under WithoutFp8.
  void LayerProduct(Context&, const Rows& x, const Tensor& weight, const Tensor& out) const;
  void SelfProduct(Context&, const Rows& x, const Tensor& weight, const Tensor& out) const;
  // own [batch, rows, 3 * inner]: queries, in whose place the answers come, keys and values of this step's rows.
  void AttendToLineage(Context&, const Tensor& own, const SelfAttentionWeights&, const LineageStep& step) const;
  Tensor LayerProduct(Context&, const Tensor& x, const Tensor& weight) const;
  bool TakesFp8(const Context& ctx, const Tensor& weight) const;
  Fp8Matrix NewRows(Context&, int64_t rows, int64_t columns) const;
  void MultiplyFp8(Context&, const Fp8Matrix& x, const Tensor& weight, const Tensor& out) const;
  Tensor FeedForwardFp8(Context&, const Tensor& x, const FeedForwardWeights&) const;
  Tensor GatedProduct(Context&, const Tensor& x, const FeedForwardWeights&) const;
  // In place where not gated.
  Tensor Activate(Context&, const Tensor& x, Activation, bool gated) const;

  // A bias table by distance: what AttentionCuda and LineageAttentionCuda read. Made once per table.
  struct BiasByDistance {
    int32_t reach = 0;
    Tensor context;  // fp32 [heads, 2 * reach + 1]
    Tensor lineage;  // fp32 [heads, kMaxSteps]
  };
  BiasByDistance BiasOf(Context&, const RelativeBias&) const;
  Tensor Mask(Context&, const Tensor& order, const Tensor& limit, int64_t groups) const;
  Tensor AttendToSelf(Context&, const Tensor& x, const SelfAttentionWeights&, const TokenView& view) const;

  const CublasLt& lt_;
  const cublasLtHandle_t handle_;
  const c10::Device where_;
  const bool warpgroups_;  // for all batches alike: other bits
  const std::unique_ptr<Algorithms> algorithms_;
  const std::shared_ptr<WorkerPool> workers_;
  const std::shared_ptr<DeviceFault> fault_ = std::make_shared<DeviceFault>();

  struct KeptBias {
    c10::weak_intrusive_ptr<c10::StorageImpl> table;  // keeps the address from being used again
    BiasByDistance bias;
  };
  mutable std::mutex bias_mu_;
  mutable absl::flat_hash_map<const void*, KeptBias> biases_;  // guarded by bias_mu_
  mutable KeptMemory kept_;                                    // of contexts
  mutable TrieCache tries_;
  const Fp8 fp8_;
  mutable Fp8Weights fp8_weights_;
  mutable std::atomic<int64_t> passes_by_graph_ = 0, passes_captured_ = 0, passes_by_ops_ = 0;
  mutable std::atomic<int64_t> kernel_nodes_ = 0, memset_nodes_ = 0, other_nodes_ = 0;
};

// The running batch; c10::Error outside of one, and where the context trains.
CudaBatch& BatchOf(Context& ctx);

}  // namespace beamline::backend::cuda
