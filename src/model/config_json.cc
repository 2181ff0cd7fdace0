// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <set>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/json.h"
#include "beamline/status.h"
#include "model/config.h"

namespace beamline::model {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMaxConfigBytes = 1 << 20;
constexpr FeatureKind kFeatureKinds[] = {
    FeatureKind::kSid, FeatureKind::kItem, FeatureKind::kAuthor, FeatureKind::kTag,      FeatureKind::kAge,
    FeatureKind::kGap, FeatureKind::kHour, FeatureKind::kPlay,   FeatureKind::kDuration, FeatureKind::kLabels};

// Reads the members of one JSON object. Every getter that fails leaves a problem with its path; Finish also reports
// members nobody asked for.
class ObjectReader {
 public:
  ObjectReader(const nlohmann::json& json, std::string path, std::vector<std::string>& problems)
      : json_(json), path_(std::move(path)), problems_(problems) {
    if (!json_.is_object()) Problem("", absl::StrCat("must be an object, is ", json_.type_name()));
  }

  bool Has(const char* key) const { return json_.is_object() && json_.contains(key); }

  const nlohmann::json* Find(const char* key, bool required) {
    seen_.insert(key);
    if (Has(key)) return &json_.at(key);
    if (required && json_.is_object()) Problem(key, "is missing");
    return nullptr;
  }

  template <typename T>
  void Int(const char* key, T& out, bool required = true) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return;
    ReadInt(key, *value, out);
  }

  void Bool(const char* key, bool& out) {
    const nlohmann::json* value = Find(key, false);
    if (value == nullptr) return;
    if (!value->is_boolean()) return Problem(key, absl::StrCat("must be true or false, is ", value->type_name()));
    out = value->get<bool>();
  }

  void Double(const char* key, double& out) {
    const nlohmann::json* value = Find(key, false);
    if (value == nullptr) return;
    if (!value->is_number()) return Problem(key, absl::StrCat("must be a number, is ", value->type_name()));
    out = value->get<double>();
  }

  void String(const char* key, std::string& out, bool required = true) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return;
    if (!value->is_string()) return Problem(key, absl::StrCat("must be a string, is ", value->type_name()));
    out = value->get<std::string>();
  }

  const nlohmann::json* Array(const char* key, bool required, size_t max_size) {
    const nlohmann::json* value = Find(key, required);
    if (value == nullptr) return nullptr;
    if (!value->is_array() || value->size() > max_size) {
      Problem(key, absl::StrCat("must be an array of at most ", max_size, " elements, is ", value->type_name(),
                                value->is_array() ? absl::StrCat(" of ", value->size()) : ""));
      return nullptr;
    }
    return value;
  }

  template <typename T>
  void ReadInt(const std::string& key, const nlohmann::json& value, T& out) {
    constexpr int64_t kLow = std::numeric_limits<T>::min();
    constexpr int64_t kHigh = std::numeric_limits<T>::max();
    if (!value.is_number_integer()) return Problem(key, absl::StrCat("must be an integer, is ", value.dump()));
    if (value.is_number_unsigned() ? value.get<uint64_t>() > static_cast<uint64_t>(kHigh)
                                   : value.get<int64_t>() < kLow || value.get<int64_t>() > kHigh) {
      return Problem(key, absl::StrCat("must lie in [", kLow, ", ", kHigh, "], is ", value.dump()));
    }
    out = value.get<T>();
  }

  void Problem(const std::string& key, const std::string& what) {
    problems_.push_back(absl::StrCat(Path(key), ": ", what));
  }

  std::string Path(const std::string& key) const {
    if (key.empty()) return path_.empty() ? "config" : path_;
    return path_.empty() ? key : absl::StrCat(path_, ".", key);
  }

  void Finish() {
    if (!json_.is_object()) return;
    for (const auto& [key, value] : json_.items()) {
      if (!seen_.contains(key)) Problem(key, absl::StrCat("is unknown; known here: ", absl::StrJoin(seen_, ", ")));
    }
  }

  std::vector<std::string>& problems() { return problems_; }

 private:
  const nlohmann::json& json_;
  const std::string path_;
  std::vector<std::string>& problems_;
  std::set<std::string> seen_;
};

void ReadFfn(const nlohmann::json& json, const std::string& path, std::vector<std::string>& problems,
             FeedForwardConfig& ffn) {
  ObjectReader reader(json, path, problems);
  reader.Int("width", ffn.width);
  reader.Bool("gated", ffn.gated);
  reader.Int("experts", ffn.experts, false);
  reader.Int("top_k", ffn.top_k, false);
  reader.Int("shared_experts", ffn.shared_experts, false);
  reader.Finish();
}

void ReadFeature(const nlohmann::json& json, const std::string& path, std::vector<std::string>& problems,
                 FeatureConfig& feature) {
  ObjectReader reader(json, path, problems);
  std::string kind;
  reader.String("kind", kind);
  bool known = false;
  std::vector<absl::string_view> names;
  for (const FeatureKind candidate : kFeatureKinds) {
    names.push_back(FeatureName(candidate));
    if (FeatureName(candidate) == kind) feature.kind = candidate, known = true;
  }
  if (!known && !kind.empty()) {
    reader.Problem("kind", absl::StrCat("'", kind, "' is unknown; known: ", absl::StrJoin(names, ", ")));
  }
  reader.Int("buckets", feature.buckets, false);
  reader.Int("width", feature.width, false);
  reader.Bool("shared", feature.shared);
  reader.Finish();
}

void ReadPathway(const nlohmann::json& json, const std::string& path, std::vector<std::string>& problems,
                 PathwayConfig& pathway) {
  ObjectReader reader(json, path, problems);
  reader.Int("length", pathway.length);
  std::string fusion = "concat_mlp";
  reader.String("fusion", fusion, false);
  if (fusion != "concat_mlp" && fusion != "sum") {
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
  ObjectReader reader(json, "static", problems);
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
  ObjectReader reader(json, "encoder", problems);
  reader.Int("layers", encoder.layers);
  reader.Bool("causal", encoder.causal);
  if (const nlohmann::json* ffn = reader.Find("ffn", encoder.layers > 0)) {
    ReadFfn(*ffn, "encoder.ffn", problems, encoder.ffn);
  }
  reader.Finish();
}

void ReadDecoder(const nlohmann::json& json, std::vector<std::string>& problems, DecoderConfig& decoder) {
  ObjectReader reader(json, "decoder", problems);
  reader.Int("layers", decoder.layers);
  reader.Int("trunk_layers", decoder.trunk_layers, false);
  reader.Bool("tied_heads", decoder.tied_heads);
  if (const nlohmann::json* ffn = reader.Find("ffn", true)) ReadFfn(*ffn, "decoder.ffn", problems, decoder.ffn);
  reader.Finish();
}

ModelConfig ReadConfig(const nlohmann::json& json, std::vector<std::string>& problems) {
  ModelConfig config;
  ObjectReader reader(json, "", problems);
  int version = 0;
  reader.Int("schema_version", version);
  if (problems.empty() && version != kConfigSchemaVersion) {
    reader.Problem("schema_version",
                   absl::StrCat("this program reads version ", kConfigSchemaVersion, ", is ", version));
  }
  reader.String("family", config.family);
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
  if (const nlohmann::json* user = reader.Find("static", false)) ReadStatic(*user, problems, config.user);
  if (const nlohmann::json* p = reader.Find("short_term", false))
    ReadPathway(*p, "short_term", problems, config.short_term);
  if (const nlohmann::json* p = reader.Find("positive", false)) ReadPathway(*p, "positive", problems, config.positive);
  if (const nlohmann::json* encoder = reader.Find("encoder", true)) ReadEncoder(*encoder, problems, config.encoder);
  if (const nlohmann::json* decoder = reader.Find("decoder", true)) ReadDecoder(*decoder, problems, config.decoder);
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
  if (config.short_term.enabled()) json["short_term"] = PathwayJson(config.short_term);
  if (config.positive.enabled()) json["positive"] = PathwayJson(config.positive);
  json["encoder"] = {{"layers", config.encoder.layers}, {"causal", config.encoder.causal}};
  if (config.encoder.layers > 0) json["encoder"]["ffn"] = FfnJson(config.encoder.ffn);
  json["decoder"] = {{"layers", config.decoder.layers},
                     {"trunk_layers", config.decoder.trunk_layers},
                     {"tied_heads", config.decoder.tied_heads},
                     {"ffn", FfnJson(config.decoder.ffn)}};
  return json.dump(2) + "\n";
}

absl::Status SaveConfig(const ModelConfig& config, const std::string& path) {
  return WriteFileAtomically(path, ConfigToJson(config));
}

}  // namespace beamline::model
