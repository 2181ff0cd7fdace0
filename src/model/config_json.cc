// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <iterator>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/json.h"
#include "base/json_object_reader.h"
#include "beamline/status.h"
#include "data/labels.h"
#include "model/config.h"

namespace beamline::model {
namespace {

using Json = nlohmann::ordered_json;

constexpr FeatureKind kFeatureKinds[] = {
    FeatureKind::kSid, FeatureKind::kItem, FeatureKind::kAuthor, FeatureKind::kTag,      FeatureKind::kAge,
    FeatureKind::kGap, FeatureKind::kHour, FeatureKind::kPlay,   FeatureKind::kDuration, FeatureKind::kLabels};
constexpr T5Activation kT5Activations[] = {T5Activation::kRelu, T5Activation::kGelu, T5Activation::kSilu};

void ReadFfn(const nlohmann::json& json, const std::string& path, std::vector<std::string>& problems,
             FeedForwardConfig& ffn) {
  JsonObjectReader reader(json, path, problems);
  reader.Int("width", ffn.width);
  reader.Bool("gated", ffn.gated);
  reader.Int("experts", ffn.experts, false);
  reader.Int("top_k", ffn.top_k, false);
  reader.Int("shared_experts", ffn.shared_experts, false);
  reader.Finish();
}

void ReadFeature(const nlohmann::json& json, const std::string& path, std::vector<std::string>& problems,
                 FeatureConfig& feature) {
  JsonObjectReader reader(json, path, problems);
  std::string kind;
  const size_t before = problems.size();
  reader.String("kind", kind);
  bool known = false;
  std::vector<absl::string_view> names;
  for (const FeatureKind candidate : kFeatureKinds) {
    names.push_back(FeatureName(candidate));
    if (FeatureName(candidate) == kind) feature.kind = candidate, known = true;
  }
  if (!known && problems.size() == before) {
    reader.Problem("kind", absl::StrCat("'", kind, "' is unknown; known: ", absl::StrJoin(names, ", ")));
  }
  reader.Int("buckets", feature.buckets, false);
  reader.Int("width", feature.width, false);
  reader.Bool("shared", feature.shared, false);
  reader.Finish();
}

void ReadPathway(const nlohmann::json& json, const std::string& path, std::vector<std::string>& problems,
                 PathwayConfig& pathway) {
  JsonObjectReader reader(json, path, problems);
  reader.Int("length", pathway.length);
  std::string fusion;
  const size_t before = problems.size();
  reader.String("fusion", fusion);
  if (problems.size() == before && fusion != "concat_mlp" && fusion != "sum") {
    reader.Problem("fusion", absl::StrCat("'", fusion, "' is unknown; known: concat_mlp, sum"));
  }
  pathway.fusion = fusion == "sum" ? InputFusion::kSum : InputFusion::kConcatMlp;
  if (const nlohmann::json* features = reader.Array("features", pathway.length > 0, 64)) {
    for (size_t i = 0; i < features->size(); ++i) {
      ReadFeature(features->at(i), absl::StrCat(path, ".features[", i, "]"), problems, pathway.features.emplace_back());
    }
  }
  reader.Finish();
}

void ReadStatic(const nlohmann::json& json, std::vector<std::string>& problems, StaticConfig& user) {
  JsonObjectReader reader(json, "static", problems);
  user.enabled = true;
  reader.Int("user_buckets", user.user_buckets, false);
  reader.Int("attribute_buckets", user.attribute_buckets, false);
  reader.Int("width", user.width);
  if (const nlohmann::json* names = reader.Array("attributes", false, 1024)) {
    for (size_t i = 0; i < names->size(); ++i) {
      if (names->at(i).is_string()) {
        user.attributes.push_back(names->at(i).get<std::string>());
      } else {
        reader.Problem(absl::StrCat("attributes[", i, "]"), "must be a string");
      }
    }
  }
  reader.Finish();
}

void ReadEncoder(const nlohmann::json& json, std::vector<std::string>& problems, EncoderConfig& encoder) {
  JsonObjectReader reader(json, "encoder", problems);
  reader.Int("layers", encoder.layers);
  reader.Bool("causal", encoder.causal);
  if (const nlohmann::json* ffn = reader.Find("ffn", encoder.layers > 0)) {
    ReadFfn(*ffn, "encoder.ffn", problems, encoder.ffn);
  }
  reader.Finish();
}

void ReadDecoder(const nlohmann::json& json, std::vector<std::string>& problems, DecoderConfig& decoder) {
  JsonObjectReader reader(json, "decoder", problems);
  reader.Int("layers", decoder.layers);
  reader.Int("trunk_layers", decoder.trunk_layers, false);
  reader.Bool("tied_heads", decoder.tied_heads);
  if (const nlohmann::json* ffn = reader.Find("ffn", true)) ReadFfn(*ffn, "decoder.ffn", problems, decoder.ffn);
  reader.Finish();
}

void ReadRanker(const nlohmann::json& json, std::vector<std::string>& problems, RankerConfig& ranker) {
  JsonObjectReader reader(json, "ranker", problems);
  reader.Int("width", ranker.width);
  if (reader.Has("width") && ranker.width == 0) {
    reader.Problem("width", "must not be 0; a model without a ranker has no such section");
  }
  reader.Double("score_weight", ranker.score_weight, false);
  if (const nlohmann::json* heads = reader.Array("heads", true, 64)) {
    for (size_t i = 0; i < heads->size(); ++i) {
      JsonObjectReader head(heads->at(i), absl::StrCat("ranker.heads[", i, "]"), problems);
      std::string label;
      head.String("label", label);
      if (const absl::StatusOr<uint32_t> known = data::ParseLabels(label); known.ok()) {
        ranker.heads.push_back({.label = *known});
      } else {
        head.Problem("label", std::string(known.status().message()));
        ranker.heads.emplace_back();
      }
      head.Double("weight", ranker.heads.back().weight, false);
      head.Finish();
    }
  }
  reader.Finish();
}

// What every family has.
void ReadSizes(JsonObjectReader& reader, ModelConfig& config) {
  if (const nlohmann::json* sizes = reader.Array("level_sizes", true, 1024)) {
    for (size_t i = 0; i < sizes->size(); ++i) {
      reader.ReadInt(absl::StrCat("level_sizes[", i, "]"), sizes->at(i), config.level_sizes.emplace_back(1));
    }
  }
  reader.Int("d_model", config.d_model);
  reader.Int("heads", config.heads);
  reader.Int("head_dim", config.head_dim, false);
  if (config.head_dim == 0 && config.heads > 0) {
    config.head_dim = config.d_model / config.heads;
    if (config.d_model % config.heads != 0) {
      reader.Problem("heads", absl::StrCat("must divide d_model (", config.d_model, ") where head_dim is left out, is ",
                                           config.heads));
    }
  }
  reader.Double("norm_epsilon", config.norm_epsilon);
  std::vector<std::string>& problems = reader.problems();
  if (const nlohmann::json* encoder = reader.Find("encoder", true)) ReadEncoder(*encoder, problems, config.encoder);
  if (const nlohmann::json* decoder = reader.Find("decoder", true)) ReadDecoder(*decoder, problems, config.decoder);
}

void ReadPathways(JsonObjectReader& reader, ModelConfig& config) {
  std::vector<std::string>& problems = reader.problems();
  if (const nlohmann::json* user = reader.Find("static", false)) ReadStatic(*user, problems, config.user);
  if (const nlohmann::json* p = reader.Find("short_term", false))
    ReadPathway(*p, "short_term", problems, config.short_term);
  if (const nlohmann::json* p = reader.Find("positive", false)) ReadPathway(*p, "positive", problems, config.positive);
}

void ReadRows(JsonObjectReader& reader, const char* key, std::vector<int32_t>& rows) {
  const nlohmann::json* values = reader.Array(key, true, 1024);
  if (values == nullptr) return;
  for (size_t i = 0; i < values->size(); ++i) {
    reader.ReadInt(absl::StrCat(key, "[", i, "]"), values->at(i), rows.emplace_back(0));
  }
}

void ReadT5(JsonObjectReader& reader, T5Config& t5) {
  std::vector<std::string>& problems = reader.problems();
  if (const nlohmann::json* json = reader.Find("t5", true)) {
    JsonObjectReader own(*json, "t5", problems);
    own.Int("vocabulary", t5.vocabulary);
    own.Bool("encoder_embedding", t5.encoder_embedding);
    own.Bool("padded", t5.padded);
    std::string activation;
    own.String("activation", activation);
    const auto known = std::find_if(std::begin(kT5Activations), std::end(kT5Activations),
                                    [&](T5Activation candidate) { return T5ActivationName(candidate) == activation; });
    if (known != std::end(kT5Activations)) {
      t5.activation = *known;
    } else {
      own.Problem("activation", absl::StrCat("'", activation, "' is unknown; known: relu, gelu, silu"));
    }
    own.Bool("scale_head", t5.scale_head);
    own.Int("relative_buckets", t5.relative_buckets);
    own.Int("relative_max_distance", t5.relative_max_distance);
    own.Int("start", t5.start);
    own.Int("end", t5.end);
    own.Bool("score_end", t5.score_end);
    if (const nlohmann::json* input = own.Find("input", true)) {
      JsonObjectReader input_reader(*input, "t5.input", problems);
      ReadRows(input_reader, "prefix", t5.input.prefix);
      ReadRows(input_reader, "suffix", t5.input.suffix);
      input_reader.Int("max_items", t5.input.max_items);
      input_reader.Finish();
    }
    own.Finish();
  }
}

ModelConfig ReadConfig(const nlohmann::json& json, std::vector<std::string>& problems) {
  ModelConfig config;
  JsonObjectReader reader(json, "", problems);
  int version = 0;
  reader.Int("schema_version", version);
  if (problems.empty() && version != kConfigSchemaVersion) {
    reader.Problem("schema_version",
                   absl::StrCat("this program reads version ", kConfigSchemaVersion, ", is ", version));
  }
  reader.String("family", config.family);
  ReadSizes(reader, config);
  if (config.is_t5()) {
    ReadT5(reader, config.t5);
    SetT5Pathway(config);
  } else {
    ReadPathways(reader, config);
    if (const nlohmann::json* ranker = reader.Find("ranker", false)) ReadRanker(*ranker, problems, config.ranker);
  }
  reader.Finish();
  return config;
}

Json FfnJson(const FeedForwardConfig& ffn) {
  Json json = {{"width", ffn.width}, {"gated", ffn.gated}};
  if (ffn.experts > 0) {
    json["experts"] = ffn.experts;
    json["top_k"] = ffn.top_k;
    json["shared_experts"] = ffn.shared_experts;
  }
  return json;
}

Json PathwayJson(const PathwayConfig& pathway) {
  Json features = Json::array();
  for (const FeatureConfig& feature : pathway.features) {
    Json json = {{"kind", std::string(FeatureName(feature.kind))}};
    if (feature.buckets != 0) json["buckets"] = feature.buckets;
    if (feature.width != 0) json["width"] = feature.width;
    if (feature.shared) json["shared"] = true;
    features.push_back(std::move(json));
  }
  return {{"length", pathway.length},
          {"fusion", pathway.fusion == InputFusion::kSum ? "sum" : "concat_mlp"},
          {"features", std::move(features)}};
}

Json RankerJson(const RankerConfig& ranker) {
  Json heads = Json::array();
  for (const RankerHead& head : ranker.heads) {
    heads.push_back({{"label", data::FormatLabels(head.label)}, {"weight", head.weight}});
  }
  return {{"width", ranker.width}, {"score_weight", ranker.score_weight}, {"heads", std::move(heads)}};
}

Json T5Json(const T5Config& t5) {
  return {{"vocabulary", t5.vocabulary},
          {"encoder_embedding", t5.encoder_embedding},
          {"padded", t5.padded},
          {"activation", std::string(T5ActivationName(t5.activation))},
          {"scale_head", t5.scale_head},
          {"relative_buckets", t5.relative_buckets},
          {"relative_max_distance", t5.relative_max_distance},
          {"start", t5.start},
          {"end", t5.end},
          {"score_end", t5.score_end},
          {"input", {{"prefix", t5.input.prefix}, {"suffix", t5.input.suffix}, {"max_items", t5.input.max_items}}}};
}

}  // namespace

absl::StatusOr<ModelConfig> ParseConfig(absl::string_view json, absl::string_view source_name) {
  BEAMLINE_ASSIGN_OR_RETURN(const nlohmann::json parsed, ParseJson(json, source_name, {.max_bytes = kMaxConfigBytes}));
  std::vector<std::string> problems;
  ModelConfig config = ReadConfig(parsed, problems);
  if (!problems.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ":\n", absl::StrJoin(problems, "\n")));
  }
  if (absl::Status status = ValidateConfig(config); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(source_name, ":\n", status.message()));
  }
  return config;
}

absl::StatusOr<ModelConfig> LoadConfig(const std::string& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxConfigBytes));
  return ParseConfig(text, path);
}

std::string ConfigToJson(const ModelConfig& config) {
  Json json = {{"schema_version", kConfigSchemaVersion},
               {"family", config.family},
               {"level_sizes", config.level_sizes},
               {"d_model", config.d_model},
               {"heads", config.heads},
               {"head_dim", config.head_dim},
               {"norm_epsilon", config.norm_epsilon}};
  if (config.user.enabled) {
    json["static"] = {{"user_buckets", config.user.user_buckets},
                      {"attribute_buckets", config.user.attribute_buckets},
                      {"attributes", config.user.attributes},
                      {"width", config.user.width}};
  }
  if (config.is_t5()) json["t5"] = T5Json(config.t5);
  if (config.short_term.enabled() && !config.is_t5()) json["short_term"] = PathwayJson(config.short_term);
  if (config.positive.enabled()) json["positive"] = PathwayJson(config.positive);
  json["encoder"] = {{"layers", config.encoder.layers}, {"causal", config.encoder.causal}};
  if (config.encoder.layers > 0) json["encoder"]["ffn"] = FfnJson(config.encoder.ffn);
  json["decoder"] = {{"layers", config.decoder.layers},
                     {"trunk_layers", config.decoder.trunk_layers},
                     {"tied_heads", config.decoder.tied_heads},
                     {"ffn", FfnJson(config.decoder.ffn)}};
  if (config.ranker.enabled()) json["ranker"] = RankerJson(config.ranker);
  return json.dump(2) + "\n";
}

absl::Status SaveConfig(const ModelConfig& config, const std::string& path) {
  return WriteFileAtomically(path, ConfigToJson(config));
}

}  // namespace beamline::model
