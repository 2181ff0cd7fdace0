// SPDX-License-Identifier: Apache-2.0
//
// Of a world its model. Widths go through the borders of vector registers and of the kernels' tiles; where kernels are
// emulated each new size takes long, and few are drawn.
#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "backend/test_context.h"
#include "beamline/kernels/moe_cuda.h"
#include "oracle/world.h"

namespace beamline::oracle {
namespace {

using model::FeatureKind;

constexpr bool kFewSizes = backend::kUnit > 1;

int Width(Random& random, int usual, int large) {
  if (kFewSizes) return backend::kUnit * UniformInt(random, 1, 2);
  return Chance(random, .15) ? UniformInt(random, usual, large) : UniformInt(random, 1, usual);
}

model::FeedForwardConfig RandomFeedForward(Random& random, bool experts) {
  model::FeedForwardConfig ffn{.width = Width(random, 40, 150), .gated = Chance(random, .6)};
  if (!experts || Chance(random, .55)) return ffn;
  ffn.gated = true;
  ffn.experts = Chance(random, .2) ? UniformInt(random, 1, 40) : UniformInt(random, 1, 8);
  ffn.top_k = Chance(random, .2) ? ffn.experts : UniformInt(random, 1, std::min(ffn.experts, 6));
  if (kFewSizes) ffn.top_k = std::min(ffn.top_k, kernels::kMaxExpertsPerRow);  // of the cuda backend
  ffn.shared_experts = Chance(random, .5) ? 0 : UniformInt(random, 1, 3);
  return ffn;
}

std::vector<uint32_t> RandomLevels(Random& random) {
  std::vector<uint32_t> sizes(Chance(random, .25) ? UniformInt(random, 1, kFewSizes ? 3 : 8)
                                                  : UniformInt(random, 2, 4));
  for (uint32_t& size : sizes) {
    const int kind = UniformInt(random, 0, 9);
    size = kind < 5                ? UniformInt(random, 1, 9)
           : kind < 8 || kFewSizes ? UniformInt(random, 10, 40)
                                   : UniformInt(random, 41, 300);
  }
  return sizes;
}

void DrawTemplate(Random& random, model::T5Config& t5) {
  const auto token = [&] { return UniformInt(random, 0, static_cast<int>(t5.vocabulary) - 1); };
  for (int i = Chance(random, .6) ? 0 : UniformInt(random, 1, 3); i > 0; --i) t5.input.prefix.push_back(token());
  for (int i = Chance(random, .3) ? 0 : UniformInt(random, 1, 2); i > 0; --i) t5.input.suffix.push_back(token());
  t5.input.max_items = Chance(random, .15) ? UniformInt(random, 9, 25) : UniformInt(random, 1, 8);
  t5.start = token();
}

void DrawT5(Random& random, model::ModelConfig& config) {
  config.family = model::kT5;
  int codes = 0;
  for (const uint32_t size : config.level_sizes) codes += static_cast<int>(size);
  model::T5Config& t5 = config.t5;
  t5.vocabulary = codes + UniformInt(random, 1, 20);
  t5.end = UniformInt(random, codes, static_cast<int>(t5.vocabulary) - 1);
  t5.score_end = Chance(random, .5);
  t5.encoder_embedding = Chance(random, .3);
  t5.padded = Chance(random, .3);
  t5.activation = static_cast<model::T5Activation>(UniformInt(random, 0, 2));
  t5.scale_head = Chance(random, .5);
  if (Chance(random, .3)) {
    t5.relative_buckets = UniformInt(random, 4, 64);
    t5.relative_max_distance = t5.relative_buckets / 2 + UniformInt(random, 1, 30);
  }
  DrawTemplate(random, t5);
  model::SetT5Pathway(config);
}

void DrawUser(Random& random, model::StaticConfig& user) {
  user.enabled = true;
  user.user_buckets = Chance(random, .5) ? UniformInt(random, 2, 10) : 0;
  user.attribute_buckets = UniformInt(random, 2, 9);
  const int attributes = UniformInt(random, user.user_buckets > 0 ? 0 : 1, 3);
  for (int i = 0; i < attributes; ++i) user.attributes.push_back(absl::StrCat("a", i));
  user.width = Width(random, 10, 20);
}

// A kind of feature has one table, whichever pathway reads it; with a sum in any pathway it is as wide as the model.
void DrawFeatures(Random& random, const model::ModelConfig& config, bool any_sum, model::PathwayConfig& pathway,
                  std::map<FeatureKind, model::FeatureConfig>& tables) {
  std::vector<FeatureKind> kinds;
  for (FeatureKind kind = FeatureKind::kSid; kind != FeatureKind::kToken;
       kind = static_cast<FeatureKind>(static_cast<int>(kind) + 1)) {
    const bool looks_ahead = kind == FeatureKind::kAge && config.encoder.causal;
    if (!looks_ahead && Chance(random, .4)) kinds.push_back(kind);
  }
  if (kinds.empty()) kinds.push_back(FeatureKind::kSid);
  std::shuffle(kinds.begin(), kinds.end(), random);
  for (const FeatureKind kind : kinds) {
    if (kind == FeatureKind::kSid && Chance(random, .5)) {
      pathway.features.push_back({.kind = kind, .shared = true});
      continue;
    }
    const auto [known, fresh] = tables.try_emplace(kind);
    if (fresh) {
      const bool fixed = kind == FeatureKind::kSid || kind == FeatureKind::kHour || kind == FeatureKind::kLabels;
      known->second = {.kind = kind,
                       .buckets = fixed ? 0 : UniformInt(random, 2, 30),
                       .width = any_sum ? config.d_model : Width(random, 9, 20)};
    }
    pathway.features.push_back(known->second);
  }
}

void DrawPathways(Random& random, model::ModelConfig& config) {
  bool any_sum = false;
  for (model::PathwayConfig* pathway : {&config.short_term, &config.positive}) {
    if (Chance(random, .25)) continue;
    pathway->length = Chance(random, .15) && !kFewSizes ? UniformInt(random, 13, 50) : UniformInt(random, 1, 12);
    if (Chance(random, .35)) pathway->fusion = model::InputFusion::kSum;
    any_sum |= pathway->fusion == model::InputFusion::kSum;
  }
  if (config.max_tokens() == 0) config.short_term.length = UniformInt(random, 1, 9);
  std::map<FeatureKind, model::FeatureConfig> tables;
  for (model::PathwayConfig* pathway : {&config.short_term, &config.positive}) {
    if (pathway->enabled()) DrawFeatures(random, config, any_sum, *pathway, tables);
  }
}

void DrawOneRec(Random& random, model::ModelConfig& config) {
  config.encoder.causal = Chance(random, .4);
  if (Chance(random, .35)) config.decoder.trunk_layers = UniformInt(random, 0, config.decoder.layers - 1);
  if (Chance(random, .6)) DrawUser(random, config.user);
  DrawPathways(random, config);
  if (config.levels() < 2 || Chance(random, .6)) return;
  config.ranker.width = 8 * UniformInt(random, 1, Chance(random, .2) ? 20 : 4);
  const int heads = UniformInt(random, 1, 8);
  for (int h = 0; h < heads; ++h) {
    config.ranker.heads.push_back({1U << h, std::uniform_real_distribution<>(-2, 3)(random)});
  }
  config.ranker.score_weight = Chance(random, .2) ? 0 : .25;
}

// Rows that are the same in every table of codes: prefixes whose scores are equal to the last bit.
void MakeTies(const model::WeightSpec& spec, std::vector<float>& values) {
  const int64_t rows = spec.shape[0], width = spec.elements() / rows;
  for (int64_t row = 1; row < rows; ++row) {
    const uint64_t mixed = static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15ULL;
    if (mixed >> 60 < 9) std::copy_n(values.begin() + row / 3 * 3 * width, width, values.begin() + row * width);
  }
}

}  // namespace

model::ModelConfig RandomConfig(Random& random) {
  model::ModelConfig config;
  config.level_sizes = RandomLevels(random);
  config.d_model = Width(random, 40, 140);
  config.heads = UniformInt(random, 1, Chance(random, .2) && !kFewSizes ? 8 : 3);
  config.head_dim = Width(random, 24, 100);
  config.norm_epsilon = Chance(random, .5) ? 1e-6 : Chance(random, .5) ? 1e-5 : .05;
  const bool t5 = Chance(random, .35);
  config.encoder = {.layers = UniformInt(random, t5 ? 1 : 0, 2), .ffn = RandomFeedForward(random, !t5)};
  config.decoder = {
      .layers = UniformInt(random, 1, 3), .tied_heads = Chance(random, .5), .ffn = RandomFeedForward(random, !t5)};
  t5 ? DrawT5(random, config) : DrawOneRec(random, config);
  return config;
}

// As initialised, but with embeddings of size 1, norms and biases that do something, and all of it larger or smaller.
HostWeights RandomWeights(Random& random, const model::ModelConfig& config) {
  const double factors[] = {.5, 1, 1, 2, 4, 10};
  const double factor = factors[UniformInt(random, 0, 5)];
  const bool ties = Chance(random, .35), negative_norms = Chance(random, .2);
  HostWeights weights;
  std::normal_distribution<double> normal(0, 1);
  for (const model::WeightSpec& spec : model::WeightSchema(config)) {
    std::vector<float> values(spec.elements());
    const double stddev = spec.role == model::WeightRole::kEmbedding ? 1 : spec.stddev;
    for (size_t i = 0; i < values.size(); ++i) {
      double value = normal(random);
      if (spec.initializer == model::Initializer::kNormal) {
        const bool leading = static_cast<int64_t>(i) < spec.leading_rows * spec.shape.back();
        value *= (leading ? spec.leading_stddev : stddev) * factor;
      } else if (spec.initializer == model::Initializer::kOnes) {
        value = (1 + .3 * value) * (negative_norms && i % 5 == 0 ? -1 : 1);
      } else {
        value *= .2;
      }
      values[i] = static_cast<float>(value);
    }
    if (spec.name == "head_bias") {  // rows without a token
      for (float& value : values) value = Chance(random, .1) ? -1e30f : 0.0f;
    }
    const bool of_codes = spec.name.starts_with("codes.") || spec.name.starts_with("head.") || spec.name == "head" ||
                          spec.name == "embedding" || spec.name == "ranker.code";
    if (ties && of_codes) MakeTies(spec, values);
    weights.emplace(spec.name, std::move(values));
  }
  return weights;
}

}  // namespace beamline::oracle
