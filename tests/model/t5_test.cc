// SPDX-License-Identifier: Apache-2.0
//
// Family t5 without Hugging Face: its configuration as JSON, and that its two ways of computing agree. What the numbers
// should be is held by tests/parity.
#include "model/t5.h"

#include <cmath>
#include <functional>

#include "gmock/gmock.h"
#include "model/model_test_util.h"

namespace beamline::model {
namespace {

using ::testing::HasSubstr;

ModelConfig T5Tiny(bool score_end) {
  ModelConfig config;
  config.family = kT5;
  config.level_sizes = {4, 3, 5};
  config.d_model = 8;
  config.heads = 3;
  config.head_dim = Fit(4);  // not d_model in all
  config.encoder = {.layers = 2, .ffn = DenseFfn(10)};
  config.decoder = {.layers = 1, .ffn = DenseFfn(10)};
  config.t5 = {.vocabulary = 17,
               .padded = true,
               .activation = T5Activation::kGelu,
               .relative_buckets = 4,
               .relative_max_distance = 9,
               .start = 12,
               .end = 13,
               .score_end = score_end,
               .input = {.prefix = {14}, .suffix = {13}, .max_items = 3}};
  SetT5Pathway(config);
  return config;
}

EncoderInput Tokens(const ModelConfig& config, const std::vector<std::vector<int32_t>>& rows) {
  size_t longest = 1;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  EncoderInput input = MakeEncoderInput(config, static_cast<int>(rows.size()), static_cast<int>(longest), 0);
  for (size_t b = 0; b < rows.size(); ++b) {
    for (size_t i = 0; i < rows[b].size(); ++i) {
      input.pathways[kShortTerm].features[b * longest + i] = rows[b][i];
      input.order[b * longest + i] = static_cast<int32_t>(i);
    }
  }
  return input;
}

TEST(T5Config, RoundTripsThroughJson) {
  for (const bool score_end : {false, true}) {
    const ModelConfig config = T5Tiny(score_end);
    ASSERT_TRUE(ValidateConfig(config).ok()) << ValidateConfig(config);
    EXPECT_EQ(config.max_tokens(), 1 + 3 * 3 + 1);
    EXPECT_EQ(config.steps(), score_end ? 4 : 3);
    EXPECT_EQ(config.first_code(0), 0);
    EXPECT_EQ(config.first_code(2), 7);
    EXPECT_EQ(config.first_code(3), 13);
    const auto parsed = ParseConfig(ConfigToJson(config), "config.json");
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(ConfigToJson(*parsed), ConfigToJson(config));
    EXPECT_EQ(parsed->short_term.length, config.short_term.length);
    EXPECT_EQ(parsed->t5.input.prefix, config.t5.input.prefix);
  }
}

TEST(T5Config, RefusesWhatNoModelCouldBeBuiltFrom) {
  const std::pair<std::function<void(ModelConfig&)>, const char*> cases[] = {
      {[](ModelConfig& c) { c.t5.vocabulary = 12; }, "t5.vocabulary"},
      {[](ModelConfig& c) { c.t5.vocabulary = int64_t{1} << 25; }, "t5.vocabulary"},
      {[](ModelConfig& c) { c.t5.start = 17; }, "t5.start: must lie in [0, 16], is 17"},
      {[](ModelConfig& c) { c.t5.end = 11; }, "t5.end: must lie in [12, 16], is 11"},
      {[](ModelConfig& c) { c.t5.relative_buckets = 3; }, "t5.relative_buckets: must lie in [4, "},
      {[](ModelConfig& c) { c.t5.relative_max_distance = 2; }, "t5.relative_max_distance"},
      {[](ModelConfig& c) { c.t5.input.prefix = {17}; }, "t5.input.prefix[0]"},
      {[](ModelConfig& c) {
         c.t5.input.suffix = {1, -1};
       },
       "t5.input.suffix[1]"},
      {[](ModelConfig& c) { c.t5.input.max_items = 0; }, "t5.input.max_items"},
      {[](ModelConfig& c) { c.t5.input.max_items = 1400; }, "in tokens"},
      {[](ModelConfig& c) { c.encoder.layers = 0; }, "encoder.layers"},
      {[](ModelConfig& c) { c.encoder.causal = true; }, "encoder.causal"},
      {[](ModelConfig& c) { c.decoder.trunk_layers = 1; }, "decoder.trunk_layers"},
      {[](ModelConfig& c) { c.decoder.ffn = Experts(4); }, "decoder.ffn.experts"},
      {[](ModelConfig& c) { c.family = "t6"; }, "onerec_v1, t5"}};
  for (const auto& [spoil, message] : cases) {
    ModelConfig config = T5Tiny(true);
    spoil(config);
    EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr(message));
  }
  std::string json = ConfigToJson(T5Tiny(true));
  json.replace(json.find("\"gelu\""), 6, "\"swish\"");
  EXPECT_THAT(std::string(ParseConfig(json, "config.json").status().message()),
              HasSubstr("t5.activation: 'swish' is unknown; known: relu, gelu, silu"));
}

class T5Test : public testing::TestWithParam<const char*> {};  // a backend's name

#if defined(BEAMLINE_TEST_CUDA)
INSTANTIATE_TEST_SUITE_P(Backends, T5Test, testing::Values("cuda"));
#else
INSTANTIATE_TEST_SUITE_P(Backends, T5Test, testing::Values("aten", "cpu"));
#endif

TEST_P(T5Test, LogitsAreTheOracles) {
  for (const bool score_end : {false, true}) {
    backend::Context ctx = TestContext("fp32", GetParam()), aten = TestContext();
    const ModelConfig config = T5Tiny(score_end);
    const auto model = RandomModel(ctx, config, 3), oracle = RandomModel(aten, config, 3);
    const EncoderInput input = Tokens(config, {{14, 0, 5, 8, 13}, {14, 13}, {1, 4, 7, 2, 6, 11, 3, 5, 9, 13}});
    const std::vector<int32_t> codes = {1, 2, 4, 0, 0, 3, 3, 1, 0}, all(3, backend::kSeesAllOrders);
    const auto actual = Teacher(ctx, *model, EncodeAll(ctx, *model, input), 1, codes, all);
    const auto expected = Teacher(aten, *oracle, EncodeAll(aten, *oracle, input), 1, codes, all);
    for (size_t step = 0; step < expected.size(); ++step) {
      EXPECT_LT(MaxDifference(actual[step], expected[step]), 2e-5) << "step " << step;
    }
  }
}

TEST_P(T5Test, StepsEqualTheTeacherAndPaddingChangesNothing) {
  for (const bool score_end : {false, true}) {
    backend::Context ctx = TestContext("fp32", GetParam());
    const ModelConfig config = T5Tiny(score_end);
    const auto model = RandomModel(ctx, config, 3);
    const std::vector<std::vector<int32_t>> rows = {{14, 0, 5, 8, 13}, {14, 13}, {1, 4, 7, 2, 6, 11, 3, 5, 9, 13}};
    const std::vector<int32_t> codes = {1, 2, 4, 0, 0, 3, 3, 1, 0};
    const std::vector<int32_t> all(3, backend::kSeesAllOrders);
    const auto together = Teacher(ctx, *model, EncodeAll(ctx, *model, Tokens(config, rows)), 1, codes, all);
    ASSERT_EQ(together.size(), static_cast<size_t>(config.steps()));
    for (size_t b = 0; b < rows.size(); ++b) {
      const EncodedContext context = EncodeAll(ctx, *model, Tokens(config, {rows[b]}));
      DecodeState state = model->BeginDecode(ctx, context);
      for (int step = 0; step < config.steps(); ++step) {
        StepInput input{.level = step};
        if (step > 0) {
          input.codes = backend::UploadInts(ctx, {codes[b * 3 + step - 1]}, {1, 1});
          input.parents = backend::UploadInts(ctx, {0}, {1, 1});
        }
        const std::vector<float> logits = backend::DownloadFloats(ctx, model->DecodeStep(ctx, state, input));
        ASSERT_EQ(logits.size(), static_cast<size_t>(config.t5.vocabulary));
        const std::vector<float> expected(together[step].begin() + b * logits.size(),
                                          together[step].begin() + (b + 1) * logits.size());
        EXPECT_LT(MaxDifference(logits, expected), 2e-5) << "request " << b << ", step " << step;
      }
    }
  }
}

// Training: every weight gets a gradient from the teacher's logits, the bias tables and the embedding included.
TEST(T5, EveryWeightHasAGradient) {
  backend::Context ctx = TestContext();
  for (const bool tied : {false, true}) {
    ModelConfig config = T5Tiny(true);
    config.decoder.tied_heads = tied;
    const auto model = RandomModel(ctx, config, 5);
    for (const WeightSpec& spec : WeightSchema(config)) {
      if (spec.role != WeightRole::kBuffer) model->weights().Get(spec.name).requires_grad_(true);
    }
    const EncodedContext context =
        EncodeAll(ctx, *model, Tokens(config, {{14, 0, 5, 8, 13}, {14, 1, 4, 7, 2, 6, 11, 13}}));
    const TeacherInput teacher{2, 1, {1, 2, 4, 3, 0, 0}, {backend::kSeesAllOrders, backend::kSeesAllOrders}};
    at::Tensor loss;
    for (const at::Tensor& logits : model->TeacherForced(ctx, context, UploadTeacherInput(ctx, config, teacher))) {
      const at::Tensor part = logits.log_softmax(-1).select(-1, 13).sum();
      loss = loss.defined() ? loss.add(part) : part;
    }
    loss.backward();
    for (const WeightSpec& spec : WeightSchema(config)) {
      if (spec.role == WeightRole::kBuffer) continue;
      const at::Tensor& gradient = model->weights().Get(spec.name).grad();
      ASSERT_TRUE(gradient.defined()) << spec.name;
      EXPECT_GT(gradient.abs().max().item<float>(), 1e-6) << spec.name;
    }
  }
}

// Deviations of transformers' T5PreTrainedModel._init_weights.
TEST(T5, StartsAsHuggingFaceInitialises) {
  backend::Context ctx = TestContext();
  ModelConfig config = *PresetConfig({.name = "t5-d128"});
  config.decoder.tied_heads = false;
  const Weights weights = InitWeights(ctx, config, 1);
  const auto deviation = [&](const char* name, int64_t first, int64_t rows) {
    const at::Tensor part = weights.Get(name).narrow(0, first, rows);
    EXPECT_LT(std::abs(part.mean().item<double>()), 0.3 * part.std().item<double>()) << name;
    return part.std().item<double>();
  };
  const double d = 1 / std::sqrt(128.0), inner = 1 / std::sqrt(384.0);
  EXPECT_NEAR(deviation("embedding", 0, 1026), 1, 0.02);
  EXPECT_NEAR(deviation("head", 0, 1026), 1, 0.02);
  EXPECT_NEAR(deviation("encoder.1.attention.qkv", 0, 384), d / 8, 0.02 * d / 8);  // queries: (d_model * d_kv)^-1/2
  EXPECT_NEAR(deviation("encoder.1.attention.qkv", 384, 768), d, 0.02 * d);
  EXPECT_NEAR(deviation("decoder.3.self.qkv", 0, 384), d / 8, 0.02 * d / 8);
  EXPECT_NEAR(deviation("decoder.3.cross.query", 0, 384), d / 8, 0.02 * d / 8);
  EXPECT_NEAR(deviation("decoder.3.cross.key_value", 0, 768), d, 0.02 * d);
  EXPECT_NEAR(deviation("decoder.3.cross.out", 0, 128), inner, 0.02 * inner);
  EXPECT_NEAR(deviation("encoder.0.ffn.up", 0, 1024), d, 0.02 * d);
  EXPECT_NEAR(deviation("encoder.0.ffn.down", 0, 128), 1 / 32.0, 0.02 / 32);
  EXPECT_NEAR(deviation("encoder.relative_bias", 0, 32), d, 0.2 * d);
  EXPECT_EQ(weights.Get("encoder.0.ffn_norm").min().item<float>(), 1);
}

}  // namespace
}  // namespace beamline::model
