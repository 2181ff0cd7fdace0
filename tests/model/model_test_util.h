// SPDX-License-Identifier: Apache-2.0
//
// Small random models and inputs for the tests of this folder. Everything is seeded.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <ostream>
#include <random>
#include <string>
#include <vector>

#include "backend/ops.h"
#include "backend/test_context.h"
#include "gtest/gtest.h"
#include "model/feature_index.h"
#include "model/model.h"

namespace beamline::model {

using backend::Fit;

inline constexpr double kTolerance = 2e-5;  // of logits around ten: some tens of roundings

inline FeedForwardConfig DenseFfn(int width) { return {.width = Fit(width)}; }
inline FeedForwardConfig Experts(int width, int shared = 0) {
  return {.width = Fit(width), .experts = 5, .top_k = 2, .shared_experts = shared};
}

// All pathways on, three levels of different sizes.
inline ModelConfig TinyConfig() {
  ModelConfig config;
  config.level_sizes = {7, 5, 11};
  config.d_model = 16;
  config.heads = 2;
  config.head_dim = 8;
  config.user = {
      .user_buckets = 9, .attribute_buckets = 6, .attributes = {"region", "age"}, .width = Fit(4), .enabled = true};
  config.short_term = {.length = 4,
                       .features = {{.kind = FeatureKind::kSid, .width = Fit(6)},
                                    {.kind = FeatureKind::kAuthor, .buckets = 12, .width = Fit(5)},
                                    {.kind = FeatureKind::kLabels, .width = Fit(3)}}};
  config.positive = {.length = 9,
                     .features = {{.kind = FeatureKind::kSid, .shared = true},
                                  {.kind = FeatureKind::kItem, .buckets = 30, .width = Fit(4)},
                                  {.kind = FeatureKind::kHour, .width = Fit(3)},
                                  {.kind = FeatureKind::kDuration, .buckets = 8, .width = Fit(3)}}};
  config.encoder = {.layers = 2, .ffn = DenseFfn(24)};
  config.decoder = {.layers = 3, .ffn = DenseFfn(24)};
  return config;
}

inline backend::Context TestContext(const char* dtype = "fp32", const char* backend = "aten") {
  return backend::BeginBatch(*backend::MakeTestContext("cpu", dtype, backend));
}

// Weights larger than the initialiser's, so that a mistake shows in the logits.
inline std::unique_ptr<Model> RandomModel(backend::Context& ctx, const ModelConfig& config, uint64_t seed) {
  std::mt19937_64 random(seed);
  Weights weights;
  for (const WeightSpec& spec : WeightSchema(config)) {
    std::normal_distribution<float> noise(spec.initializer == Initializer::kOnes ? 1.0f : 0.0f,
                                          spec.shape.size() < 2 ? 0.2f : 0.35f);
    std::vector<float> values(spec.elements());
    for (float& value : values) value = noise(random);
    weights.Set(spec.name, spec.role == WeightRole::kBuffer ? backend::UploadFloats(ctx, values, spec.shape)
                                                            : backend::UploadWeight(ctx, values, spec.shape));
  }
  return *MakeModel(config, std::move(weights));
}

// One user's history: events with random features; the last `short_term.length` are also in the short-term pathway.
struct History {
  std::vector<int32_t> static_features;
  std::vector<std::vector<int32_t>> short_term, positive;  // [events][columns]
};

inline std::vector<int32_t> RandomColumns(const ModelConfig& config, const PathwayConfig& pathway,
                                          std::mt19937_64& rng) {
  std::vector<int32_t> columns;
  for (const FeatureConfig& feature : pathway.features) {
    if (feature.kind == FeatureKind::kSid) {
      for (const uint32_t size : config.level_sizes) columns.push_back(static_cast<int32_t>(rng() % (size + 1)));
    } else {
      const int64_t ids = feature.kind == FeatureKind::kLabels ? 256 : FeatureBuckets(feature);
      columns.push_back(static_cast<int32_t>(rng() % ids));
    }
  }
  return columns;
}

inline History RandomHistory(const ModelConfig& config, int events, std::mt19937_64& rng) {
  History history;
  for (int c = 0; c < config.user.columns(); ++c) {
    const int64_t buckets =
        c == 0 && config.user.user_buckets > 0 ? config.user.user_buckets : config.user.attribute_buckets;
    history.static_features.push_back(static_cast<int32_t>(rng() % buckets));
  }
  for (int event = 0; event < events; ++event) {
    history.short_term.push_back(RandomColumns(config, config.short_term, rng));
    history.positive.push_back(RandomColumns(config, config.positive, rng));
  }
  return history;
}

// Histories of any lengths in one padded input, positive and short-term pathways holding the newest events.
inline EncoderInput BatchOf(const ModelConfig& config, const std::vector<History>& histories, int extra_padding = 0) {
  int longest = 0;
  for (const History& history : histories) longest = std::max<int>(longest, history.positive.size());
  EncoderInput input = MakeEncoderInput(config, histories.size(), longest + extra_padding, longest + extra_padding);
  const int tokens = input.tokens(config), first = config.user.enabled ? 1 : 0;
  for (size_t b = 0; b < histories.size(); ++b) {
    const int columns = config.user.columns();
    std::copy_n(histories[b].static_features.begin(), columns, input.static_features.begin() + b * columns);
    int offset = first;
    for (int p = 0; p < kPathways; ++p) {
      const auto& events = p == kShortTerm ? histories[b].short_term : histories[b].positive;
      PathwayInput& pathway = input.pathways[p];
      const int kept = std::min<int>(pathway.length, events.size());
      for (int i = 0; i < kept; ++i) {
        const size_t event = events.size() - kept + i;
        std::copy(events[event].begin(), events[event].end(),
                  pathway.features.begin() + (b * pathway.length + i) * events[event].size());
        input.order[b * tokens + offset + i] = static_cast<int32_t>(event);
      }
      offset += pathway.length;
    }
  }
  return input;
}

inline EncodedContext EncodeAll(backend::Context& ctx, const Model& model, const EncoderInput& input) {
  EXPECT_TRUE(CheckEncoderInput(model.config(), input).ok()) << CheckEncoderInput(model.config(), input);
  return model.Encode(ctx, UploadEncoderInput(ctx, model.config(), input));
}

// codes [batch][targets][levels] -> logits per level, flat [batch * targets * size]
inline std::vector<std::vector<float>> Teacher(backend::Context& ctx, const Model& model, const EncodedContext& context,
                                               int targets, const std::vector<int32_t>& codes,
                                               const std::vector<int32_t>& limits) {
  const TeacherInput input{static_cast<int>(context.batch()), targets, codes, limits};
  // In the product the trainer alone makes these, from a catalogue's SIDs.
  EXPECT_EQ(codes.size(), limits.size() * model.config().levels());
  EXPECT_EQ(limits.size(), static_cast<size_t>(input.batch) * targets);
  std::vector<std::vector<float>> logits;
  for (const at::Tensor& level : model.TeacherForced(ctx, context, UploadTeacherInput(ctx, model.config(), input))) {
    logits.push_back(backend::DownloadFloats(ctx, level));
  }
  return logits;
}

inline std::vector<int32_t> RandomCodes(const ModelConfig& config, int count, std::mt19937_64& rng) {
  std::vector<int32_t> codes;
  for (int i = 0; i < count; ++i) {
    for (const uint32_t size : config.level_sizes) codes.push_back(static_cast<int32_t>(rng() % size));
  }
  return codes;
}

inline double MaxDifference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double worst = a.size() == b.size() ? 0 : INFINITY;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const double difference = std::abs(double{a[i]} - b[i]);
    worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
  }
  return worst;
}

// The models every equivalence is tested on, on every backend.
struct ModelCase {
  std::string name;
  ModelConfig config;
  const char* backend = "aten";

  friend void PrintTo(const ModelCase& model_case, std::ostream* out) { *out << model_case.name; }
};

inline std::vector<ModelCase> ModelCases() {
  std::vector<ModelCase> cases;
  cases.push_back({"paper", TinyConfig()});
  ModelConfig causal = TinyConfig();
  causal.encoder.causal = true;
  cases.push_back({"causal", causal});
  ModelConfig moe = TinyConfig();
  moe.encoder.ffn = Experts(10);
  moe.decoder.ffn = Experts(12, 1);
  cases.push_back({"moe", moe});
  ModelConfig trunk = causal;
  trunk.decoder.trunk_layers = 2;
  trunk.decoder.tied_heads = false;
  cases.push_back({"trunk", trunk});
  ModelConfig sum = causal;
  sum.user = {};
  sum.short_term = {};
  sum.head_dim = Fit(5);
  sum.positive.fusion = InputFusion::kSum;
  for (FeatureConfig& feature : sum.positive.features) feature.width = 0;
  sum.decoder.ffn.gated = false;
  cases.push_back({"sum", sum});
  ModelConfig bare = TinyConfig();  // one level, its head untied, no sid feature shared: no table of codes
  bare.level_sizes.resize(1);
  bare.decoder.tied_heads = false;
  for (PathwayConfig* pathway : {&bare.short_term, &bare.positive}) {
    std::erase_if(pathway->features, [](const FeatureConfig& feature) { return feature.shared; });
  }
  cases.push_back({"one_level", bare});
#if defined(BEAMLINE_TEST_CUDA)
  for (ModelCase& model_case : cases) model_case.backend = "cuda";
#else
  for (size_t i = 0, count = cases.size(); i < count; ++i) {
    cases.push_back({cases[i].name + "_cpu", cases[i].config, "cpu"});
  }
#endif
  return cases;
}

}  // namespace beamline::model
