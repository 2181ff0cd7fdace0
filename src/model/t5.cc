// SPDX-License-Identifier: Apache-2.0
#include "model/t5.h"

#include <cmath>

namespace beamline::model {

using at::Tensor;
using backend::Context;

namespace {

backend::Activation OpActivation(T5Activation activation) {
  switch (activation) {
    case T5Activation::kRelu:
      return backend::Activation::kRelu;
    case T5Activation::kGelu:
      return backend::Activation::kGeluTanh;
    case T5Activation::kSilu:
      return backend::Activation::kSilu;
  }
  return backend::Activation::kRelu;
}

backend::RelativeBias BindBias(const ModelConfig& config, const Weights& weights, const char* name,
                               bool bidirectional) {
  return {.table = weights.Get(name),
          .buckets = {.count = config.t5.relative_buckets,
                      .max_distance = config.t5.relative_max_distance,
                      .bidirectional = bidirectional}};
}

}  // namespace

T5::T5(const ModelConfig& config, Weights weights) : config_(config), weights_(std::move(weights)) {
  BindEncoder();
  BindDecoder();
}

void T5::BindEncoder() {
  tokens_.table = weights_.Get(config_.t5.encoder_embedding ? "encoder.embedding" : "embedding");
  for (int i = 0; i < config_.encoder.layers; ++i) {
    EncoderLayer layer = BindEncoderLayer(config_, weights_, i);
    layer.attention.scale = 1;
    layer.attention.inner_dropout = layer.ffn.dense.inner_dropout = true;
    layer.attention.bias = BindBias(config_, weights_, "encoder.relative_bias", /*bidirectional=*/true);
    layer.ffn.dense.activation = OpActivation(config_.t5.activation);
    encoder_.push_back(std::move(layer));
  }
  encoder_norm_ = weights_.Get("encoder.norm");
}

void T5::BindDecoder() {
  for (int i = 0; i < config_.decoder.layers; ++i) {
    DecoderLayer layer = BindDecoderLayer(config_, weights_, i);
    layer.self.scale = layer.cross.scale = 1;
    layer.self.inner_dropout = layer.cross.inner_dropout = layer.ffn.dense.inner_dropout = true;
    layer.self.bias = BindBias(config_, weights_, "decoder.relative_bias", /*bidirectional=*/false);
    layer.ffn.dense.activation = OpActivation(config_.t5.activation);
    decoder_.push_back(std::move(layer));
  }
  decoder_norm_ = weights_.Get("decoder.norm");

  const Tensor& embedding = weights_.Get("embedding");
  codes_.bos_row = config_.t5.start;
  for (int level = 0; level < config_.levels(); ++level) {
    codes_.tables.push_back(embedding);
    codes_.first_rows.push_back(config_.first_code(level));
  }
  const parallel::Shard shard = weights_.shard();
  head_ = {.weight = config_.decoder.tied_heads ? backend::RowsOfRank(embedding, shard) : weights_.Get("head"),
           .bias = backend::RowsOfRank(weights_.Get("head_bias"), shard),
           .scale = config_.t5.scale_head ? 1 / std::sqrt(static_cast<double>(config_.d_model)) : 1};
}

EncodedContext T5::Encode(Context& ctx, const EncoderBatch& batch) const {
  const Tensor mask = backend::PaddingMask(ctx, batch.packing.packed() ? batch.packing.order : batch.order);
  Tensor x = backend::EmbedFeatures(ctx, {tokens_}, backend::FeatureFusion::kSum, batch.features[kShortTerm]);
  x = backend::JoinTokens(ctx, {x}, {}, batch.positions);  // [batch * tokens, d]
  x = backend::PackTokens(ctx, x, batch.packing);
  for (const EncoderLayer& layer : encoder_) x = RunEncoderLayer(ctx, layer, x, {mask, batch.packing});
  x = backend::Dropout(ctx, backend::RmsNorm(ctx, x, encoder_norm_, config_.norm_epsilon));

  EncodedContext context{.order = batch.order};
  for (const DecoderLayer& layer : decoder_) {
    context.key_value.push_back(backend::ContextKeyValue(ctx, x, layer.cross, {batch.batch, batch.packing}));
  }
  return context;
}

DecodeState T5::BeginDecode(Context& ctx, EncodedContext context) const {
  DecodeState state;
  state.mask = backend::PaddingMask(ctx, context.order);
  state.layers.resize(config_.decoder.layers);
  state.context = std::move(context);
  return state;
}

Tensor T5::DecodeStep(Context& ctx, DecodeState& state, const StepInput& step) const {
  const int64_t batch = state.context.batch();
  const bool last = step.level + 1 == config_.steps();
  if (step.level > 0) state.lineage = backend::ExtendLineage(ctx, state.lineage, step.parents);

  const backend::WithoutFp8 rounding(ctx, step.level == 0);  // a row that all beams share
  Tensor x = backend::EmbedStep(ctx, codes_, {.level = step.level, .batch = batch}, step.codes);  // [batch * rows, d]
  for (size_t i = 0; i < decoder_.size(); ++i) {
    const LayerStep input{{state.context.key_value[i], state.mask}, {batch, state.lineage, last, state.layers[i]}};
    x = RunDecoderLayer(ctx, decoder_[i], input, x);
  }
  state.output = backend::RmsNorm(ctx, x, decoder_norm_, config_.norm_epsilon);
  x = backend::LevelHead(ctx, state.output, head_, {.batch = batch});
  return backend::AllGather(ctx, x, config_.t5.vocabulary);  // [batch, rows, vocabulary]
}

Tensor T5::TeacherForcedOutput(Context& ctx, const EncodedContext& context, const TeacherBatch& targets) const {
  const int steps = config_.steps();
  const Tensor mask = backend::VisibilityMask(ctx, context.order, targets.order_limit, steps);
  Tensor x = backend::EmbedPrefix(ctx, codes_, targets.codes, steps);  // [batch * targets * steps, d]
  for (size_t i = 0; i < decoder_.size(); ++i) {
    x = RunDecoderLayer(ctx, decoder_[i], LayerTargets{{context.key_value[i], mask}, steps}, x);
  }
  return backend::Dropout(ctx, backend::RmsNorm(ctx, x, decoder_norm_, config_.norm_epsilon));
}

std::vector<Tensor> T5::TeacherForced(Context& ctx, const EncodedContext& context, const TeacherBatch& targets) const {
  const Tensor x = TeacherForcedOutput(ctx, context, targets);
  const int steps = config_.steps();
  std::vector<Tensor> logits;
  logits.reserve(steps);
  for (int step = 0; step < steps; ++step) {
    const Tensor own = backend::LevelHead(ctx, x, head_, {steps, step, targets.batch});
    logits.push_back(backend::AllGather(ctx, own, config_.t5.vocabulary));
  }
  return logits;  // per step [batch, targets, vocabulary]
}

}  // namespace beamline::model
