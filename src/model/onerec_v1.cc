// SPDX-License-Identifier: Apache-2.0
#include "model/onerec_v1.h"

#include "absl/strings/str_cat.h"

namespace beamline::model {

using at::Tensor;
using backend::Context;

namespace {

backend::DenseWeights BindDense(const Weights& weights, const std::string& name) {
  return {.weight = weights.Get(absl::StrCat(name, ".weight")), .bias = weights.Get(absl::StrCat(name, ".bias"))};
}

PathwayEncoder BindStatic(const ModelConfig& config, const Weights& weights) {
  PathwayEncoder encoder;
  if (!config.user.enabled) return encoder;
  if (config.user.user_buckets > 0) encoder.tables.push_back({.table = weights.Get("static.user")});
  for (size_t i = 0; i < config.user.attributes.size(); ++i) {
    encoder.tables.push_back({.table = weights.Get(absl::StrCat("static.attribute.", i))});
  }
  encoder.dense1 = BindDense(weights, "static.dense1");
  encoder.dense2 = BindDense(weights, "static.dense2");
  return encoder;
}

PathwayEncoder BindPathway(const ModelConfig& config, const Weights& weights, int pathway) {
  const PathwayConfig& pathway_config = pathway == kShortTerm ? config.short_term : config.positive;
  const std::string name = pathway == kShortTerm ? "short_term" : "positive";
  PathwayEncoder encoder;
  for (const FeatureConfig& feature : pathway_config.features) {
    if (feature.kind == FeatureKind::kSid) {
      for (int level = 0; level < config.levels(); ++level) {
        const std::string table = absl::StrCat(feature.shared ? "codes." : "features.sid.", level);
        encoder.tables.push_back({.table = weights.Get(table), .lookup = backend::FeatureLookup::kFromOne});
      }
      continue;
    }
    const bool bits = feature.kind == FeatureKind::kLabels;
    encoder.tables.push_back({.table = weights.Get(absl::StrCat("features.", FeatureName(feature.kind))),
                              .lookup = bits ? backend::FeatureLookup::kBitSum : backend::FeatureLookup::kIndex});
  }
  if (pathway_config.fusion == InputFusion::kSum) {
    encoder.fusion = backend::FeatureFusion::kSum;
    return encoder;
  }
  encoder.dense1 = BindDense(weights, absl::StrCat(name, ".dense1"));
  encoder.dense2 = BindDense(weights, absl::StrCat(name, ".dense2"));
  return encoder;
}

// features [batch, length, columns] -> [batch * length, d]
Tensor RunPathway(Context& ctx, const PathwayEncoder& encoder, const Tensor& features) {
  Tensor x = backend::EmbedFeatures(ctx, encoder.tables, encoder.fusion, features);
  if (encoder.fusion == backend::FeatureFusion::kSum) return x;
  x = backend::Dense(ctx, x, encoder.dense1, backend::Activation::kLeakyRelu);  // [batch * length, d]
  return backend::Dense(ctx, x, encoder.dense2);                                // [batch * length, d]
}

}  // namespace

OneRecV1::OneRecV1(const ModelConfig& config, Weights weights)
    : config_(config),
      weights_(std::move(weights)),
      static_(BindStatic(config_, weights_)),
      pathways_{BindPathway(config_, weights_, kShortTerm), BindPathway(config_, weights_, kPositive)},
      position_(weights_.Get("position")),
      encoder_norm_(weights_.Get("encoder.norm")),
      decoder_norm_(weights_.Get("decoder.norm")) {
  for (int layer = 0; layer < config_.encoder.layers; ++layer) {
    encoder_.push_back(BindEncoderLayer(config_, weights_, layer));
  }
  for (int layer = 0; layer < config_.decoder.layers; ++layer) {
    decoder_.push_back(BindDecoderLayer(config_, weights_, layer));
  }
  codes_.bos = weights_.Get("bos");
  for (int level = 0; level < config_.levels(); ++level) {
    codes_.tables.push_back(weights_.Get(absl::StrCat("codes.", level)));
    heads_.push_back(config_.decoder.tied_heads ? backend::RowsOfRank(codes_.tables[level], weights_.shard())
                                                : weights_.Get(absl::StrCat("head.", level)));
  }
  if (config_.ranker.enabled()) ranker_ = BindRanker(config_, weights_);
  if (config_.decoder.trunk_layers == 0) {
    codes_.positions = weights_.Get("decoder.position");
    return;
  }
  trunk_position_ = weights_.Get("decoder.position");
  fusion_ = BindDense(weights_, "decoder.fusion");
}

Tensor OneRecV1::EmbedTokens(Context& ctx, const EncoderBatch& batch) const {
  std::vector<Tensor> tokens;
  if (batch.static_features.defined()) tokens.push_back(RunPathway(ctx, static_, batch.static_features));
  for (int p = 0; p < kPathways; ++p) {
    if (batch.features[p].defined()) tokens.push_back(RunPathway(ctx, pathways_[p], batch.features[p]));
  }
  return backend::JoinTokens(ctx, tokens, position_, batch.positions);  // [batch * tokens, d]
}

EncodedContext OneRecV1::Encode(Context& ctx, const EncoderBatch& batch) const {
  const Tensor& order = batch.packing.packed() ? batch.packing.order : batch.order;
  const Tensor mask =
      config_.encoder.causal ? backend::VisibilityMask(ctx, order, order, 1) : backend::PaddingMask(ctx, order);
  Tensor x = EmbedTokens(ctx, batch);  // [batch * tokens, d]
  x = backend::PackTokens(ctx, x, batch.packing);
  for (const EncoderLayer& layer : encoder_) x = RunEncoderLayer(ctx, layer, x, {mask, batch.packing});
  x = backend::RmsNorm(ctx, x, encoder_norm_, config_.norm_epsilon);

  EncodedContext context{.order = batch.order};
  for (const DecoderLayer& layer : decoder_) {
    context.key_value.push_back(backend::ContextKeyValue(ctx, x, layer.cross, {batch.batch, batch.packing}));
  }
  return context;
}

Tensor OneRecV1::RunTrunk(Context& ctx, const EncodedContext& context, const Tensor& mask, int64_t groups) const {
  const backend::WithoutFp8 rounding(ctx, /*on=*/true);              // rows that all of a request's beams share
  Tensor x = backend::EmbedPositions(ctx, trunk_position_, groups);  // [groups * levels, d]
  for (int layer = 0; layer < config_.decoder.trunk_layers; ++layer) {
    x = RunDecoderLayer(ctx, decoder_[layer], LayerTargets{{context.key_value[layer], mask}, config_.levels()}, x);
  }
  return x;
}

DecodeState OneRecV1::BeginDecode(Context& ctx, EncodedContext context) const {
  DecodeState state;
  state.mask = backend::PaddingMask(ctx, context.order);
  if (context.first.trunk.defined()) {
    state.trunk = context.first.trunk;
  } else if (config_.decoder.trunk_layers > 0) {
    state.trunk = RunTrunk(ctx, context, state.mask, context.batch());
  }
  state.layers.resize(config_.decoder.layers - config_.decoder.trunk_layers);
  state.context = std::move(context);
  return state;
}

Tensor OneRecV1::DecodeStep(Context& ctx, DecodeState& state, const StepInput& step) const {
  const int64_t batch = state.context.batch(), rows = step.level == 0 ? 1 : step.codes.size(1);
  const int trunk_layers = config_.decoder.trunk_layers;
  const bool last = step.level + 1 == config_.levels();
  if (step.level > 0) state.lineage = backend::ExtendLineage(ctx, state.lineage, step.parents);

  const backend::WithoutFp8 rounding(ctx, step.level == 0);  // a row that all beams share
  Tensor x = backend::EmbedStep(ctx, codes_, {.level = step.level, .batch = batch}, step.codes);  // [batch * rows, d]
  if (trunk_layers > 0) {
    const Tensor trunk = backend::TrunkRows(ctx, state.trunk, {config_.levels(), step.level, batch}, rows);
    x = backend::GatedFusion(ctx, trunk, x, fusion_);  // [batch * rows, d]
  }
  for (int layer = trunk_layers; layer < config_.decoder.layers; ++layer) {
    const LayerStep input{{state.context.key_value[layer], state.mask},
                          {batch, state.lineage, last, state.layers[layer - trunk_layers]}};
    x = RunDecoderLayer(ctx, decoder_[layer], input, x);
  }
  state.output = backend::RmsNorm(ctx, x, decoder_norm_, config_.norm_epsilon);
  x = backend::LevelHead(ctx, state.output, {.weight = heads_[step.level]}, {.batch = batch});
  return backend::AllGather(ctx, x, config_.level_sizes[step.level]);  // [batch, rows, level size]
}

Tensor OneRecV1::TeacherForcedOutput(Context& ctx, const EncodedContext& context, const TeacherBatch& targets) const {
  const int levels = config_.levels(), trunk_layers = config_.decoder.trunk_layers;
  const Tensor mask = backend::VisibilityMask(ctx, context.order, targets.order_limit, levels);
  Tensor x = backend::EmbedPrefix(ctx, codes_, targets.codes, levels);  // [batch * targets * levels, d]
  if (trunk_layers > 0) {
    const Tensor trunk = RunTrunk(ctx, context, mask, targets.batch * targets.targets);
    x = backend::GatedFusion(ctx, trunk, x, fusion_);
  }
  for (int layer = trunk_layers; layer < config_.decoder.layers; ++layer) {
    x = RunDecoderLayer(ctx, decoder_[layer], LayerTargets{{context.key_value[layer], mask}, levels}, x);
  }
  return backend::RmsNorm(ctx, x, decoder_norm_, config_.norm_epsilon);
}

std::vector<Tensor> OneRecV1::TeacherForced(Context& ctx, const EncodedContext& context,
                                            const TeacherBatch& targets) const {
  const Tensor x = TeacherForcedOutput(ctx, context, targets);
  const int levels = config_.levels();
  std::vector<Tensor> logits;
  logits.reserve(levels);
  for (int level = 0; level < levels; ++level) {
    const Tensor own = backend::LevelHead(ctx, x, {.weight = heads_[level]}, {levels, level, targets.batch});
    logits.push_back(backend::AllGather(ctx, own, config_.level_sizes[level]));
  }
  return logits;  // per level [batch, targets, level size]
}

}  // namespace beamline::model
