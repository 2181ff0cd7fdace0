// SPDX-License-Identifier: Apache-2.0
//
// A backend: one implementation of the op set of ops.h, where each op is documented. Thread-safe: what changes lives in
// the Context, the caches and the tensors handed in, but for what a backend keeps of weights, which it guards.
#pragma once

#include <optional>

#include <c10/core/Stream.h>

#include "backend/model_limits.h"
#include "backend/ops.h"
#include "beamline/device_memory.h"
#include "beamline/device_passes.h"

namespace beamline::backend {

class Backend {
 public:
  virtual ~Backend() = default;

  virtual ModelLimits GetModelLimits() const { return {}; }

  // Bytes per weight of what is kept of layers' and heads' matrices besides the tensors themselves.
  virtual int64_t PackedWeightBytes() const { return 0; }
  // Drops what is kept of weights that nobody holds any more: for whoever has just destroyed a model.
  virtual void ReleaseUnusedWeights() const {}

  // Gives back to the device what is kept for later batches and free now: for whoever is about to ask how much there
  // is.
  virtual void ReleaseFreeMemory() const {}

  // What was measured on the device so that later starts need not, as text, and what a file of it is called: letters,
  // digits, '.' and '-', different wherever it does not hold. An empty name: nothing is measured. Import passes over
  // what was measured elsewhere; INVALID_ARGUMENT says what is no such text, of which nothing is used.
  virtual std::string TuningName() const { return {}; }
  virtual std::string ExportTuning() const { return {}; }
  virtual absl::Status ImportTuning(absl::string_view) const { return absl::OkStatus(); }
  // The same, and in the place of what is used here by now: of another rank of the group, which must compute the same.
  // No batch runs meanwhile.
  virtual absl::Status AdoptTuning(absl::string_view) const { return absl::OkStatus(); }

  // Nullopt where tensors are in the host's memory, or nobody can say. Thread-safe.
  virtual std::optional<DeviceMemory> GetDeviceMemory() const { return std::nullopt; }
  // Nullopt where passes are no more than their ops. Thread-safe.
  virtual std::optional<DevicePasses> GetDevicePasses() const { return std::nullopt; }

  // Why nothing can be computed on the device in this process any more, UNAVAILABLE; OK: it can, as far as is known.
  // Cheap; thread-safe.
  virtual absl::Status fault() const { return absl::OkStatus(); }

  // May be null: nothing is kept for a batch. `workers` are the context's: of this backend, or null.
  virtual std::shared_ptr<BatchResources> BeginBatch(const std::shared_ptr<BatchWorkers>& workers) const {
    return nullptr;
  }
  // For a model's contexts, so that one that is loaded and warmed up beside another takes nothing of it. Null: batches
  // have no such things of their own.
  virtual std::shared_ptr<BatchWorkers> NewWorkers() const { return nullptr; }
  // Where a batch computes on a stream of its own: that one, with all that was put off on it. What others enqueue for
  // the batch (ATen, NCCL) belongs there.
  virtual std::optional<c10::Stream> StreamOf(Context&) const { return std::nullopt; }
  // Whether what a batch enqueues runs while the host goes on.
  virtual bool RunsBehindTheHost() const { return false; }
  // How often a batch runs on a worker until later ones like it cost what they will.
  virtual int RunsUntilWarm() const { return 1; }

  virtual Tensor UploadInts(Context&, absl::Span<const int32_t>, absl::Span<const int64_t> shape) const = 0;
  virtual Tensor UploadFloats(Context&, absl::Span<const float>, absl::Span<const int64_t> shape) const = 0;
  virtual Tensor UploadWeight(Context&, absl::Span<const float>, absl::Span<const int64_t> shape) const = 0;
  virtual std::vector<int32_t> DownloadInts(Context&, const Tensor& ints) const = 0;
  virtual std::vector<float> DownloadFloats(Context&, const Tensor& floats) const = 0;

  virtual Tensor EmbedFeatures(Context&, absl::Span<const FeatureTable>, FeatureFusion,
                               const Tensor& features) const = 0;
  virtual Tensor JoinTokens(Context&, absl::Span<const Tensor> pathways, const Tensor& position_table,
                            const Tensor& positions) const = 0;
  virtual Tensor EmbedPrefix(Context&, const CodeEmbedding&, const Tensor& codes, int steps) const = 0;
  virtual Tensor EmbedStep(Context&, const CodeEmbedding&, const LevelRows& of, const Tensor& codes) const = 0;
  virtual Tensor EmbedPositions(Context&, const Tensor& positions, int64_t groups) const = 0;
  virtual Tensor TrunkRows(Context&, const Tensor& trunk, const LevelRows& of, int64_t rows) const = 0;
  virtual Tensor GatedFusion(Context&, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) const = 0;

  virtual Tensor RmsNorm(Context&, const Tensor& x, const Tensor& weight, double epsilon) const = 0;
  virtual Tensor Dense(Context&, const Tensor& x, const DenseWeights&, Activation) const = 0;
  virtual Tensor FeedForward(Context&, const Tensor& x, const FeedForwardWeights&) const = 0;
  virtual Tensor MoeFeedForward(Context&, const Tensor& x, const MoeWeights&) const = 0;
  virtual Tensor Residual(Context&, const Tensor& x, const Tensor& delta) const = 0;
  virtual Tensor Dropout(Context&, const Tensor& x) const = 0;
  virtual Tensor LevelHead(Context&, const Tensor& x, const HeadWeights&, const LevelRows& of) const = 0;

  virtual Tensor VisibilityMask(Context&, const Tensor& order, const Tensor& limit, int repeat) const = 0;
  virtual Tensor PaddingMask(Context&, const Tensor& order) const = 0;
  virtual Tensor SelfAttention(Context&, const Tensor& x, const SelfAttentionWeights&, const TokenView& view) const = 0;
  // x [n, width], rows int32 [m] -> [m, width]; of -1, zeros. See PackTokens.
  virtual Tensor GatherRows(Context&, const Tensor& x, const Tensor& rows) const = 0;
  virtual Tensor CausalSelfAttention(Context&, const Tensor& x, const SelfAttentionWeights&, int length) const = 0;
  virtual Tensor ContextKeyValue(Context&, const Tensor& x, const CrossAttentionWeights&, int64_t batch) const = 0;
  virtual Tensor CrossAttention(Context&, const Tensor& x, const CrossAttentionWeights&,
                                const ContextView& context) const = 0;

  virtual Tensor ExtendLineage(Context&, const Tensor& lineage, const Tensor& parents) const = 0;
  virtual Tensor LineageAttention(Context&, const Tensor& x, const SelfAttentionWeights&,
                                  const LineageStep& step) const = 0;
  virtual Tensor TakeVisible(Context&, const Tensor& x, const Tensor& order, int64_t row) const = 0;
  virtual Tensor StackPadded(Context&, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill) const = 0;
  // One after the other, where a backend does not do all at once.
  virtual std::vector<Tensor> TakeAllVisible(Context&, absl::Span<const Tensor> xs, const Tensor& order,
                                             int64_t row) const;
  virtual std::vector<Tensor> StackAllPadded(Context&, absl::Span<const Tensor> rows, int64_t stacks,
                                             int64_t capacity) const;
  // REQUIRES: !SearchesOnDevice().
  virtual Tensor TakeRows(Context&, const Tensor& x, int64_t first, int64_t count) const;
  virtual Tensor JoinRows(Context&, absl::Span<const Tensor> parts) const;

  virtual void SelectBeams(Context&, const SelectBeamsArgs&) const = 0;
  virtual void RankBeams(Context&, const RankBeamsArgs&) const = 0;
  virtual Tensor RankerLogits(Context&, const Tensor& states, const RankerWeights&, const Tensor& codes) const;
  // See ops.h; a backend without graphs runs the body.
  virtual std::vector<Tensor> RunPass(Context&, const std::string& pass, absl::Span<const Tensor> inputs,
                                      PassBody body) const {
    return body(inputs);
  }
  virtual int64_t RoomFor(const Context&, int64_t size, int64_t) const { return size; }
  virtual int64_t RowsToPack(const Context&, int64_t, int64_t) const { return 0; }
  virtual bool SearchesOnDevice() const { return false; }
  // Null: beams live on the host, and SelectBeams is all there is.
  virtual std::unique_ptr<DeviceSearch> BeginSearch(Context&, absl::Span<const DeviceSearchRequest>) const {
    return nullptr;
  }
};

}  // namespace beamline::backend
