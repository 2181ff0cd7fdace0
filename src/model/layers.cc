// SPDX-License-Identifier: Apache-2.0
#include "model/layers.h"

#include "absl/strings/str_cat.h"

namespace beamline::model {

using at::Tensor;
using backend::Context;

namespace {

FeedForwardLayer BindFeedForward(const FeedForwardConfig& config, const Weights& weights, const std::string& layer) {
  FeedForwardLayer ffn;
  if (config.experts == 0) {
    ffn.dense = {.gated = config.gated,
                 .activation = config.gated ? backend::Activation::kSilu : backend::Activation::kGelu,
                 .up = weights.Get(absl::StrCat(layer, ".ffn.up")),
                 .down = weights.Get(absl::StrCat(layer, ".ffn.down"))};
    return ffn;
  }
  ffn.moe = backend::MoeWeights{.gate = weights.Get(absl::StrCat(layer, ".moe.gate")),
                                .bias = weights.Get(absl::StrCat(layer, ".moe.bias")),
                                .up = weights.Get(absl::StrCat(layer, ".moe.up")),
                                .down = weights.Get(absl::StrCat(layer, ".moe.down")),
                                .shared_up = weights.Get(absl::StrCat(layer, ".moe.shared_up")),
                                .shared_down = weights.Get(absl::StrCat(layer, ".moe.shared_down")),
                                .top_k = config.top_k,
                                .layer = absl::StrCat(layer, ".moe")};
  return ffn;
}

Tensor RunFeedForward(Context& ctx, const FeedForwardLayer& ffn, const Tensor& x) {
  return ffn.moe ? backend::MoeFeedForward(ctx, x, *ffn.moe) : backend::FeedForward(ctx, x, ffn.dense);
}

}  // namespace

EncoderLayer BindEncoderLayer(const ModelConfig& config, const Weights& weights, int layer) {
  const std::string name = absl::StrCat("encoder.", layer);
  return {.epsilon = config.norm_epsilon,
          .attention_norm = weights.Get(absl::StrCat(name, ".attention_norm")),
          .attention = {.qkv = weights.Get(absl::StrCat(name, ".attention.qkv")),
                        .out = weights.Get(absl::StrCat(name, ".attention.out")),
                        .heads = config.heads / weights.shard().size},
          .ffn_norm = weights.Get(absl::StrCat(name, ".ffn_norm")),
          .ffn = BindFeedForward(config.encoder.ffn, weights, name)};
}

DecoderLayer BindDecoderLayer(const ModelConfig& config, const Weights& weights, int layer) {
  const std::string name = absl::StrCat("decoder.", layer);
  return {.epsilon = config.norm_epsilon,
          .self_norm = weights.Get(absl::StrCat(name, ".self_norm")),
          .self = {.qkv = weights.Get(absl::StrCat(name, ".self.qkv")),
                   .out = weights.Get(absl::StrCat(name, ".self.out")),
                   .heads = config.heads / weights.shard().size},
          .cross_norm = weights.Get(absl::StrCat(name, ".cross_norm")),
          .cross = {.query = weights.Get(absl::StrCat(name, ".cross.query")),
                    .key_value = weights.Get(absl::StrCat(name, ".cross.key_value")),
                    .out = weights.Get(absl::StrCat(name, ".cross.out")),
                    .heads = config.heads / weights.shard().size},
          .ffn_norm = weights.Get(absl::StrCat(name, ".ffn_norm")),
          .ffn = BindFeedForward(config.decoder.ffn, weights, name)};
}

Tensor RunEncoderLayer(Context& ctx, const EncoderLayer& layer, Tensor x, const backend::TokenView& view) {
  Tensor h = backend::RmsNorm(ctx, x, layer.attention_norm, layer.epsilon);  // [rows, d]
  h = backend::SelfAttention(ctx, h, layer.attention, view);                 // [rows, d]
  h = backend::AllReduce(ctx, h);
  x = backend::Residual(ctx, x, h);
  h = backend::RmsNorm(ctx, x, layer.ffn_norm, layer.epsilon);
  h = RunFeedForward(ctx, layer.ffn, h);  // [rows, d]
  h = backend::AllReduce(ctx, h);
  return backend::Residual(ctx, x, h);
}

Tensor RunDecoderLayer(Context& ctx, const DecoderLayer& layer, const LayerTargets& input, Tensor x) {
  Tensor h = backend::RmsNorm(ctx, x, layer.self_norm, layer.epsilon);  // [groups * levels, d]
  h = backend::CausalSelfAttention(ctx, h, layer.self, input.levels);   // [groups * levels, d]
  h = backend::AllReduce(ctx, h);
  x = backend::Residual(ctx, x, h);
  h = backend::RmsNorm(ctx, x, layer.cross_norm, layer.epsilon);
  h = backend::CrossAttention(ctx, h, layer.cross, input.context);  // [groups * levels, d]
  h = backend::AllReduce(ctx, h);
  x = backend::Residual(ctx, x, h);
  h = backend::RmsNorm(ctx, x, layer.ffn_norm, layer.epsilon);
  h = RunFeedForward(ctx, layer.ffn, h);  // [groups * levels, d]
  h = backend::AllReduce(ctx, h);
  return backend::Residual(ctx, x, h);
}

Tensor RunDecoderLayer(Context& ctx, const DecoderLayer& layer, const LayerStep& input, Tensor x) {
  Tensor h = backend::RmsNorm(ctx, x, layer.self_norm, layer.epsilon);  // [batch * rows, d]
  h = backend::LineageAttention(ctx, h, layer.self, input.lineage);
  h = backend::AllReduce(ctx, h);
  x = backend::Residual(ctx, x, h);
  h = backend::RmsNorm(ctx, x, layer.cross_norm, layer.epsilon);
  h = backend::CrossAttention(ctx, h, layer.cross, input.context);  // [batch * rows, d]
  h = backend::AllReduce(ctx, h);
  x = backend::Residual(ctx, x, h);
  h = backend::RmsNorm(ctx, x, layer.ffn_norm, layer.epsilon);
  h = RunFeedForward(ctx, layer.ffn, h);  // [batch * rows, d]
  h = backend::AllReduce(ctx, h);
  return backend::Residual(ctx, x, h);
}

}  // namespace beamline::model
