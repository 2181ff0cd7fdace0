// SPDX-License-Identifier: Apache-2.0
#include "model/config.h"

#include <algorithm>
#include <fstream>
#include <limits>

#include "beamline/request.h"
#include "gmock/gmock.h"
#include "model/model_test_util.h"
#include "model/weight_schema.h"
#include "nlohmann/json.hpp"

namespace beamline::model {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(ConfigTest, JsonRoundTrip) {
  for (const ModelCase& model_case : ModelCases()) {
    const std::string json = ConfigToJson(model_case.config);
    const auto parsed = ParseConfig(json, "test");
    ASSERT_TRUE(parsed.ok()) << model_case.name << parsed.status();
    EXPECT_EQ(ConfigToJson(*parsed), json) << model_case.name;
  }
}

ModelConfig RankedConfig() {
  ModelConfig config = TinyConfig();
  config.ranker = {.width = 16, .heads = {{kLongView, 1.0}, {kLike, -0.25}}, .score_weight = 0.5};
  return config;
}

TEST(ConfigTest, ARankerIsReadAsItWasWritten) {
  const auto parsed = ParseConfig(ConfigToJson(RankedConfig()), "test");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->ranker.width, 16);
  ASSERT_EQ(parsed->ranker.heads.size(), 2u);
  EXPECT_EQ(parsed->ranker.heads[0].label, kLongView);
  EXPECT_EQ(parsed->ranker.heads[1].label, kLike);
  EXPECT_EQ(parsed->ranker.heads[1].weight, -0.25);
  EXPECT_EQ(parsed->ranker.score_weight, 0.5);
  EXPECT_FALSE(ParseConfig(ConfigToJson(TinyConfig()), "test")->ranker.enabled());
}

// Its weights are part of the model: counted, estimated, and checked in files.
TEST(ConfigTest, ARankerHasWeights) {
  const ModelConfig ranked = RankedConfig(), plain = TinyConfig();
  const int64_t d = plain.d_model, codes = plain.level_sizes.back();
  EXPECT_EQ(CountParameters(ranked).network - CountParameters(plain).network, 16 * d + 16 + codes * 16 + 2 * 16 + 2);
  EXPECT_EQ(WeightSchema(ranked).size() - WeightSchema(plain).size(), 5u);
}

TEST(ConfigTest, ARankerNeedsAFamilyAndTwoLevels) {
  ModelConfig config = RankedConfig();
  config.level_sizes.resize(1);
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("ranker: needs two SID levels"));
  config = RankedConfig();
  config.family = kT5;
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("ranker: family t5 has none"));
}

TEST(ConfigTest, SavesAndLoads) {
  const std::string path = testing::TempDir() + "/config_test.json";
  ASSERT_TRUE(SaveConfig(TinyConfig(), path).ok());
  EXPECT_EQ(ConfigToJson(*LoadConfig(path)), ConfigToJson(TinyConfig()));
  EXPECT_FALSE(LoadConfig(path + ".missing").ok());
}

struct BadConfig {
  const char* pointer;  // JSON pointer to set
  const char* value;    // JSON text; "" removes the key
  const char* message;
};

class BadConfigTest : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigTest, IsRefusedWithItsPath) {
  nlohmann::json json = nlohmann::json::parse(ConfigToJson(TinyConfig()));
  const nlohmann::json::json_pointer pointer(GetParam().pointer);
  if (*GetParam().value == '\0') {
    json[pointer.parent_pointer()].erase(pointer.back());
  } else {
    json[pointer] = nlohmann::json::parse(GetParam().value);
  }
  const auto config = ParseConfig(json.dump(), "bundle/config.json");
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(config.status().message(), HasSubstr("bundle/config.json"));
  EXPECT_THAT(config.status().message(), HasSubstr(GetParam().message));
}

const BadConfig kBadConfigs[] = {
    {"/schema_version", "2", "schema_version: this program reads version 1, is 2"},
    {"/schema_version", "", "schema_version: is missing"},
    {"/family", "\"onerec_v9\"", "family: 'onerec_v9' is unknown"},
    {"/family", "7", "family: must be a string, is number"},
    {"/level_sizes", "[]", "level_sizes: must lie in [1, 8], is 0"},
    {"/level_sizes", "[1,1,1,1,1,1,1,1,1]", "level_sizes: must lie in [1, 8], is 9"},
    {"/level_sizes/1", "0", "level_sizes[1]: must lie in [1, 65536], is 0"},
    {"/level_sizes/1", "2147483648", "level_sizes[1]: must lie in [1, 65536], is 2147483648"},
    {"/level_sizes/1", "-1", "level_sizes[1]: must lie in [0, 4294967295], is -1"},
    {"/level_sizes/1", "1.5", "level_sizes[1]: must be an integer, is 1.5"},
    {"/d_model", "0", "d_model: must lie in [1, 16384], is 0"},
    {"/d_model", "99999999999999999999", "d_model: must be an integer"},
    {"/d_model", "\"16\"", "d_model: must be an integer, is \"16\""},
    {"/heads", "0", "heads: must lie in [1, 256], is 0"},
    {"/head_dim", "-8", "head_dim: must lie in [1, 1024], is -8"},
    {"/norm_epsilon", "0", "norm_epsilon: must lie in (0, 0.1], is 0"},
    {"/encoder/layers", "1000000", "encoder.layers: must lie in [0, 256], is 1000000"},
    {"/encoder/causal", "1", "encoder.causal: must be true or false"},
    {"/decoder/layers", "0", "decoder.layers: must lie in [1, 256], is 0"},
    {"/decoder/trunk_layers", "3", "decoder.trunk_layers: must lie in [0, 2], is 3"},
    {"/decoder/ffn/width", "0", "decoder.ffn.width: must lie in [1, 262144], is 0"},
    {"/decoder/ffn/top_k", "1", "decoder.ffn.top_k: must be 0 where experts is 0, is 1"},
    {"/decoder/ffn", "{\"width\":4,\"gated\":true,\"experts\":4,\"top_k\":5}",
     "decoder.ffn.top_k: must lie in [1, 4], is 5"},
    {"/decoder/ffn", "{\"width\":4,\"experts\":4,\"top_k\":1,\"gated\":false}", "decoder.ffn.gated"},
    {"/decoder", "", "decoder: is missing"},
    {"/encoder/causal", "", "encoder.causal: is missing"},
    {"/decoder/tied_heads", "", "decoder.tied_heads: is missing"},
    {"/norm_epsilon", "", "norm_epsilon: is missing"},
    {"/short_term/fusion", "", "short_term.fusion: is missing"},
    {"/decoder/beams", "5", "decoder.beams: is unknown; known here:"},
    {"/positive/length", "5000", "positive.length: must lie in [0, 4096], is 5000"},
    {"/positive/features", "[]", "positive.features: must not be empty"},
    {"/positive/features/0/kind", "\"\"", "positive.features[0].kind: '' is unknown"},
    {"/positive/features/0/kind", "\"colour\"", "positive.features[0].kind: 'colour' is unknown"},
    {"/positive/features/1/buckets", "1", "positive.features[1].buckets: must lie in [2, 2147483648], is 1"},
    {"/positive/features/2/buckets", "3", "positive.features[2].buckets: is fixed for hour"},
    {"/positive/features/1/shared", "true", "positive.features[1].shared: only a sid feature"},
    {"/positive/features/1/width", "0", "positive.features[1].width: must lie in [1, 16384], is 0"},
    {"/positive/features/1/kind", "\"sid\"", "positive.features[1].kind: sid is listed twice"},
    {"/positive/fusion", "\"product\"", "positive.fusion: 'product' is unknown"},
    {"/static/attributes", "[\"a\",\"a\"]", "static.attributes[1]: is listed twice"},
    {"/static/user_buckets", "1", "static.user_buckets: must lie in [2, 2147483648], is 1"},
    {"/static/width", "0", "static.width: must lie in [1, 16384], is 0"},
    {"/static", "[]", "static: must be an object, is array"},
    {"/ranker", "7", "ranker: must be an object, is number"},
    {"/ranker", "{}", "ranker.width: is missing"},
    {"/ranker", R"({"width":16})", "ranker.heads: is missing"},
    {"/ranker", R"({"width":16,"heads":[]})", "ranker.heads: must lie in [1, 8], is 0"},
    {"/ranker", R"({"width":0,"heads":[{"label":"like"}]})", "ranker.width: must not be 0"},
    {"/ranker", R"({"width":0,"heads":[]})", "ranker.width: must not be 0"},
    {"/ranker", R"({"width":-8,"heads":[]})", "ranker.width: must lie in [8, 4096], is -8"},
    {"/ranker", R"({"width":4104,"heads":[{"label":"like"}]})", "ranker.width: must lie in [8, 4096], is 4104"},
    {"/ranker", R"({"width":12,"heads":[{"label":"like"}]})", "ranker.width: must be a multiple of 8, is 12"},
    {"/ranker", R"({"width":16,"heads":[{"label":"likes"}]})", "ranker.heads[0].label: unknown label"},
    {"/ranker", R"({"width":16,"heads":[{"label":"like|click"}]})", "ranker.heads[0].label: must be one label"},
    {"/ranker", R"({"width":16,"heads":[{"label":"like"},{"label":"like"}]})",
     "ranker.heads[1].label: has a head already"},
    {"/ranker", R"({"width":16,"heads":[{"label":"like","weight":1e7}]})",
     "ranker.heads[0].weight: must lie in [-1000000, 1000000], is 1e+07"},
    {"/ranker", R"({"width":16,"score_weight":-1e7,"heads":[{"label":"like"}]})",
     "ranker.score_weight: must lie in [-1000000, 1000000], is -1e+07"},
    {"/ranker", R"({"width":16,"score_weight":"1","heads":[{"label":"like"}]})",
     "ranker.score_weight: must be a number"},
    {"/ranker", R"({"width":16,"heads":[{"weight":1}]})", "ranker.heads[0].label: is missing"},
    {"/ranker", R"({"width":16,"heads":[{"label":"like","bias":1}]})", "ranker.heads[0].bias: is unknown"},
};

INSTANTIATE_TEST_SUITE_P(Table, BadConfigTest, testing::ValuesIn(kBadConfigs));

TEST(ConfigTest, AllProblemsComeAtOnce) {
  ModelConfig config = TinyConfig();
  config.d_model = 0;
  config.decoder.layers = 0;
  config.user = {};
  config.short_term = {};
  config.positive = {};
  const std::string message(ValidateConfig(config).message());
  EXPECT_THAT(message, HasSubstr("d_model: "));
  EXPECT_THAT(message, HasSubstr("decoder.layers: "));
  EXPECT_THAT(message, HasSubstr("all pathways are off"));
}

TEST(ConfigTest, SizesOutOfAllBoundsAreNamedAsTheyAre) {
  constexpr int kLeast = std::numeric_limits<int>::min(), kMost = std::numeric_limits<int>::max();
  ModelConfig config = TinyConfig();
  config.short_term.length = config.positive.length = kMost;
  config.decoder.layers = kLeast;
  const std::string message(ValidateConfig(config).message());
  EXPECT_THAT(message, HasSubstr("positive.length: must lie in [0, 4096], is 2147483647"));
  EXPECT_THAT(message, Not(HasSubstr("all pathways are off")));
  EXPECT_THAT(message, HasSubstr("decoder.layers: must lie in [1, 256], is -2147483648"));
  config.family = kT5;
  config.t5.vocabulary = kLeast;
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("must lie in [24, 16777216], is -2147483648"));
}

TEST(ConfigTest, OfVeryManyProblemsTheFirstAreShown) {
  ModelConfig config = TinyConfig();
  config.level_sizes.assign(1000, 0);
  const std::string message(ValidateConfig(config).message());
  EXPECT_THAT(message, HasSubstr("level_sizes[3]: must lie in"));
  EXPECT_THAT(message, testing::ContainsRegex("\nand [0-9]+ more$"));
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 20) << message;
}

TEST(ConfigTest, CausalEncoderRefusesAge) {
  ModelConfig config = TinyConfig();
  config.positive.features.push_back({.kind = FeatureKind::kAge, .buckets = 8, .width = 2});
  EXPECT_TRUE(ValidateConfig(config).ok());
  config.encoder.causal = true;
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("use gap"));
}

TEST(ConfigTest, PathwaysShareAFeatureTable) {
  ModelConfig config = TinyConfig();
  config.short_term.features.push_back({.kind = FeatureKind::kItem, .buckets = 30, .width = 4});
  EXPECT_TRUE(ValidateConfig(config).ok());
  config.short_term.features.back().buckets = 31;
  EXPECT_THAT(std::string(ValidateConfig(config).message()), HasSubstr("pathways share the table"));
}

TEST(PresetTest, AllAreValidAndUnknownOnesListThem) {
  for (const std::string& name : PresetNames()) {
    EXPECT_TRUE(PresetConfig({.name = name, .items = 100, .authors = 10}).ok()) << name;
  }
  const auto unknown = PresetConfig({.name = "huge"});
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("0.935B"));
  EXPECT_EQ(PresetConfig({.name = "demo", .level_sizes = {4, 9}})->level_sizes, (std::vector<uint32_t>{4, 9}));
}

// The paper's sizes count the network, without the feature tables, which live elsewhere. Its row for 0.015B (d 128, 4
// layers, FFN 256) gives 7 M with untied heads over 3 x 8192 codes; the rest must be such tables.
TEST(PresetTest, PaperSizes) {
  const auto network = [](const char* name) { return CountParameters(*PresetConfig({.name = name})).network * 1e-9; };
  EXPECT_NEAR(network("0.121B"), 0.121, 0.121 * 0.01);
  EXPECT_NEAR(network("0.935B"), 0.935, 0.935 * 0.01);
  EXPECT_NEAR(network("2.633B"), 2.633, 2.633 * 0.01);
  EXPECT_NEAR(network("0.015B"), 0.007, 0.0005);
  EXPECT_GT(CountParameters(*PresetConfig({.name = "0.015B"})).total, 15'000'000);
  const ParameterCount moe = CountParameters(*PresetConfig({.name = "0.935B"}));
  EXPECT_NEAR(static_cast<double>(moe.active) / moe.network, 0.18, 0.02);
}

}  // namespace
}  // namespace beamline::model
