// SPDX-License-Identifier: Apache-2.0
#include "backend/ops.h"

#include <ATen/ops/empty.h>
#include <c10/core/StreamGuard.h>
#include <c10/util/Exception.h>

#include "backend/backend.h"
#include "backend/communicator.h"

namespace beamline::backend {

Tensor UploadInts(Context& ctx, absl::Span<const int32_t> values, absl::Span<const int64_t> shape) {
  return ctx.backend->UploadInts(ctx, values, shape);
}

Tensor UploadFloats(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape) {
  return ctx.backend->UploadFloats(ctx, values, shape);
}

Tensor UploadWeight(Context& ctx, absl::Span<const float> values, absl::Span<const int64_t> shape) {
  return ctx.backend->UploadWeight(ctx, values, shape);
}

std::vector<int32_t> DownloadInts(Context& ctx, const Tensor& ints) { return ctx.backend->DownloadInts(ctx, ints); }

std::vector<float> DownloadFloats(Context& ctx, const Tensor& floats) {
  return ctx.backend->DownloadFloats(ctx, floats);
}

Tensor EmbedFeatures(Context& ctx, absl::Span<const FeatureTable> tables, FeatureFusion fusion,
                     const Tensor& features) {
  return ctx.backend->EmbedFeatures(ctx, tables, fusion, features);
}

Tensor JoinTokens(Context& ctx, absl::Span<const Tensor> pathways, const Tensor& position_table,
                  const Tensor& positions) {
  return ctx.backend->JoinTokens(ctx, pathways, position_table, positions);
}

Tensor EmbedPrefix(Context& ctx, const CodeEmbedding& embedding, const Tensor& codes, int steps) {
  return ctx.backend->EmbedPrefix(ctx, embedding, codes, steps);
}

Tensor EmbedStep(Context& ctx, const CodeEmbedding& embedding, const LevelRows& of, const Tensor& codes) {
  return ctx.backend->EmbedStep(ctx, embedding, of, codes);
}

Tensor EmbedPositions(Context& ctx, const Tensor& positions, int64_t groups) {
  return ctx.backend->EmbedPositions(ctx, positions, groups);
}

Tensor TrunkRows(Context& ctx, const Tensor& trunk, const LevelRows& of, int64_t rows) {
  return ctx.backend->TrunkRows(ctx, trunk, of, rows);
}

Tensor GatedFusion(Context& ctx, const Tensor& trunk, const Tensor& code, const DenseWeights& gate) {
  return ctx.backend->GatedFusion(ctx, trunk, code, gate);
}

Tensor RmsNorm(Context& ctx, const Tensor& x, const Tensor& weight, double epsilon) {
  return ctx.backend->RmsNorm(ctx, x, weight, epsilon);
}

Tensor Dense(Context& ctx, const Tensor& x, const DenseWeights& w, Activation activation) {
  return ctx.backend->Dense(ctx, x, w, activation);
}

Tensor FeedForward(Context& ctx, const Tensor& x, const FeedForwardWeights& w) {
  return ctx.backend->FeedForward(ctx, x, w);
}

Tensor MoeFeedForward(Context& ctx, const Tensor& x, const MoeWeights& w) {
  return ctx.backend->MoeFeedForward(ctx, x, w);
}

Tensor Residual(Context& ctx, const Tensor& x, const Tensor& delta) { return ctx.backend->Residual(ctx, x, delta); }

Tensor Dropout(Context& ctx, const Tensor& x) { return ctx.backend->Dropout(ctx, x); }

Tensor LevelHead(Context& ctx, const Tensor& x, const HeadWeights& head, const LevelRows& of) {
  return ctx.backend->LevelHead(ctx, x, head, of);
}

Tensor AllReduce(Context& ctx, const Tensor& x) {
  if (ctx.communicator == nullptr) return x;
  const c10::OptionalStreamGuard in_order(ctx.backend->StreamOf(ctx));
  ctx.communicator->AllReduce(x);
  return x;
}

Tensor AllGather(Context& ctx, const Tensor& own, int64_t columns) {
  if (ctx.communicator == nullptr) return own;
  const c10::OptionalStreamGuard in_order(ctx.backend->StreamOf(ctx));
  const Tensor all = at::empty({own.size(0), own.size(1), columns}, own.options());
  ctx.communicator->AllGather(own.flatten(0, 1), all.flatten(0, 1));
  return all;
}

Tensor RowsOfRank(const Tensor& weight, parallel::Shard shard) {
  if (!weight.defined() || shard.whole()) return weight;
  return weight.narrow(0, shard.begin(weight.size(0)), shard.count(weight.size(0)));
}

Tensor VisibilityMask(Context& ctx, const Tensor& order, const Tensor& limit, int repeat) {
  return ctx.backend->VisibilityMask(ctx, order, limit, repeat);
}

Tensor PaddingMask(Context& ctx, const Tensor& order) { return ctx.backend->PaddingMask(ctx, order); }

Tensor SelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, const TokenView& view) {
  return ctx.backend->SelfAttention(ctx, x, w, view);
}

Tensor PackTokens(Context& ctx, const Tensor& x, const TokenPacking& packing) {
  return packing.from.defined() ? ctx.backend->GatherRows(ctx, x, packing.from) : x;
}

Tensor UnpackTokens(Context& ctx, const Tensor& x, const TokenPacking& packing) {
  return packing.packed() ? ctx.backend->GatherRows(ctx, x, packing.to) : x;
}

Tensor CausalSelfAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, int length) {
  return ctx.backend->CausalSelfAttention(ctx, x, w, length);
}

Tensor ContextKeyValue(Context& ctx, const Tensor& x, const CrossAttentionWeights& w, const ContextRows& of) {
  if (!of.packing.packed()) return ctx.backend->ContextKeyValue(ctx, x, w, of.batch);
  const Tensor packed = ctx.backend->ContextKeyValue(ctx, x, w, 1).squeeze(0);
  return UnpackTokens(ctx, packed, of.packing).view({of.batch, -1, packed.size(1)});
}

Tensor CrossAttention(Context& ctx, const Tensor& x, const CrossAttentionWeights& w, const ContextView& context) {
  return ctx.backend->CrossAttention(ctx, x, w, context);
}

Tensor ExtendLineage(Context& ctx, const Tensor& lineage, const Tensor& parents) {
  return ctx.backend->ExtendLineage(ctx, lineage, parents);
}

Tensor LineageAttention(Context& ctx, const Tensor& x, const SelfAttentionWeights& w, const LineageStep& step) {
  return ctx.backend->LineageAttention(ctx, x, w, step);
}

std::vector<Tensor> Backend::TakeAllVisible(Context& ctx, absl::Span<const Tensor> xs, const Tensor& order,
                                            int64_t row) const {
  std::vector<Tensor> taken;
  taken.reserve(xs.size());
  for (const Tensor& x : xs) taken.push_back(TakeVisible(ctx, x, order, row));
  return taken;
}

std::vector<Tensor> TakeVisible(Context& ctx, absl::Span<const Tensor> xs, const Tensor& order, int64_t row) {
  return ctx.backend->TakeAllVisible(ctx, xs, order, row);
}

int64_t RoomFor(const Context& ctx, int64_t size, int64_t fewest) { return ctx.backend->RoomFor(ctx, size, fewest); }

int64_t RowsToPack(const Context& ctx, int64_t tokens, int64_t padded) {
  return ctx.backend->RowsToPack(ctx, tokens, padded);
}

bool SearchesOnDevice(const Context& ctx) { return ctx.backend->SearchesOnDevice(); }

Tensor Backend::TakeRows(Context&, const Tensor&, int64_t, int64_t) const {
  TORCH_CHECK(false, "rows are taken where beams live on the host");
}

Tensor Backend::JoinRows(Context&, absl::Span<const Tensor>) const {
  TORCH_CHECK(false, "rows are joined where beams live on the host");
}

Tensor TakeRows(Context& ctx, const Tensor& x, int64_t first, int64_t count) {
  return ctx.backend->TakeRows(ctx, x, first, count);
}

Tensor JoinRows(Context& ctx, absl::Span<const Tensor> parts) { return ctx.backend->JoinRows(ctx, parts); }

Tensor StackPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t capacity, int32_t fill) {
  return ctx.backend->StackPadded(ctx, rows, capacity, fill);
}

std::vector<Tensor> Backend::StackAllPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t stacks,
                                            int64_t capacity) const {
  std::vector<Tensor> stacked;
  stacked.reserve(static_cast<size_t>(stacks));
  const size_t each = rows.size() / static_cast<size_t>(stacks);
  for (size_t at = 0; at < rows.size(); at += each) {
    stacked.push_back(StackPadded(ctx, rows.subspan(at, each), capacity, 0));
  }
  return stacked;
}

std::vector<Tensor> StackAllPadded(Context& ctx, absl::Span<const Tensor> rows, int64_t stacks, int64_t capacity) {
  if (stacks == 0) return {};
  return ctx.backend->StackAllPadded(ctx, rows, stacks, capacity);
}

std::vector<Tensor> RunPass(Context& ctx, const std::string& pass, absl::Span<const Tensor> inputs, PassBody body) {
  return ctx.backend->RunPass(ctx, pass, inputs, body);
}

std::unique_ptr<DeviceSearch> BeginSearch(Context& ctx, absl::Span<const DeviceSearchRequest> requests) {
  return ctx.backend->BeginSearch(ctx, requests);
}

void SelectBeams(Context& ctx, const SelectBeamsArgs& args) { return ctx.backend->SelectBeams(ctx, args); }

void RankBeams(Context& ctx, const RankBeamsArgs& args) { return ctx.backend->RankBeams(ctx, args); }

Tensor RankerLogits(Context& ctx, const Tensor& states, const RankerWeights& w, const Tensor& codes) {
  return ctx.backend->RankerLogits(ctx, states, w, codes);
}

Tensor Backend::RankerLogits(Context&, const Tensor&, const RankerWeights&, const Tensor&) const {
  TORCH_CHECK(false, "a ranker is trained with backend aten");
}

}  // namespace beamline::backend
