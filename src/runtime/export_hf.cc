// SPDX-License-Identifier: Apache-2.0
#include "runtime/export_hf.h"

#include <algorithm>
#include <string>
#include <system_error>
#include <vector>

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/safetensors.h"
#include "beamline/status.h"
#include "model/config.h"
#include "model/weight_schema.h"
#include "runtime/bundle_manifest.h"
#include "runtime/hf_t5_weights.h"
#include "runtime/training_record.h"
#include "runtime/vocabulary.h"
#include "sid/sid_index.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct Model {
  model::ModelConfig config;
  std::vector<int64_t> tokens;  // [rows] ids
  int64_t vocabulary = 0;       // largest id + 1
  int64_t Id(int32_t row) const { return tokens[row]; }
};

// ById writes where the ids say; what Vocabulary::Load refuses is asked again here, since memory depends on it. A
// checkpoint cannot say which token one is that has no id.
absl::Status CheckModelTokens(const Model& model, const std::string& vocabulary_path, const std::string& config_path) {
  const int64_t rows = static_cast<int64_t>(model.tokens.size());
  for (int64_t row = 0; row < rows; ++row) {
    if (model.tokens[row] >= -1 && model.tokens[row] < rows) continue;
    return absl::InternalError(absl::StrCat(vocabulary_path, ": row ", row, " of ", rows, " is ", model.tokens[row]));
  }
  const auto check = [&](absl::string_view field, int32_t row) {
    if (model.Id(row) >= 0) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(vocabulary_path, ": row ", row, ": is -1, no token, but ", config_path, " has it as ", field));
  };
  const model::T5Config& t5 = model.config.t5;
  BEAMLINE_RETURN_IF_ERROR(check("t5.start", t5.start));
  BEAMLINE_RETURN_IF_ERROR(check("t5.end", t5.end));
  for (const int32_t row : t5.input.prefix) BEAMLINE_RETURN_IF_ERROR(check("t5.input.prefix", row));
  for (const int32_t row : t5.input.suffix) BEAMLINE_RETURN_IF_ERROR(check("t5.input.suffix", row));
  return absl::OkStatus();
}

absl::StatusOr<Model> LoadModel(const fs::path& folder) {
  Model model;
  const std::string config_path = (folder / kConfigFile).string();
  BEAMLINE_ASSIGN_OR_RETURN(model.config, model::LoadConfig(config_path));
  if (!model.config.is_t5()) {
    return absl::InvalidArgumentError(
        absl::StrCat(config_path, ": family is ", model.config.family, ", only t5 has a counterpart in transformers"));
  }
  const std::string vocabulary_path = (folder / kVocabularyFile).string();
  BEAMLINE_ASSIGN_OR_RETURN(const Vocabulary vocabulary, Vocabulary::Load(vocabulary_path));
  model.tokens = {vocabulary.tokens().begin(), vocabulary.tokens().end()};
  if (static_cast<int64_t>(model.tokens.size()) != model.config.t5.vocabulary) {
    return absl::InvalidArgumentError(absl::StrCat(vocabulary_path, ": names ", model.tokens.size(), " tokens, ",
                                                   config_path, " has ", model.config.t5.vocabulary, " rows"));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckModelTokens(model, vocabulary_path, config_path));
  for (const int64_t token : model.tokens) model.vocabulary = std::max(model.vocabulary, token + 1);
  return model;
}

bool OneEmbedding(const model::ModelConfig& config) {
  return config.decoder.tied_heads && !config.t5.encoder_embedding;
}

std::string FeedForwardName(const model::ModelConfig& config) {
  const std::string gate = config.encoder.ffn.gated ? "gated-" : "";
  if (config.t5.activation != model::T5Activation::kGelu) {
    return absl::StrCat(gate, model::T5ActivationName(config.t5.activation));
  }
  return config.encoder.ffn.gated ? "gated-gelu" : "gelu_new";  // the tanh form
}

json ConfigJson(const Model& model) {
  const model::ModelConfig& config = model.config;
  return {{"architectures", {"T5ForConditionalGeneration"}},
          {"model_type", "t5"},
          {"is_encoder_decoder", true},
          {"dtype", "float32"},
          {"vocab_size", model.vocabulary},
          {"d_model", config.d_model},
          {"d_kv", config.head_dim},
          {"d_ff", config.encoder.ffn.width},
          {"num_heads", config.heads},
          {"num_layers", config.encoder.layers},
          {"num_decoder_layers", config.decoder.layers},
          {"relative_attention_num_buckets", config.t5.relative_buckets},
          {"relative_attention_max_distance", config.t5.relative_max_distance},
          {"layer_norm_epsilon", config.norm_epsilon},
          {"feed_forward_proj", FeedForwardName(config)},
          {"tie_word_embeddings", OneEmbedding(config)},
          {"scale_decoder_outputs", config.t5.scale_head},
          {"dropout_rate", 0.1},
          {"decoder_start_token_id", model.Id(config.t5.start)},
          {"pad_token_id", model.Id(config.t5.start)},
          {"eos_token_id", model.Id(config.t5.end)}};
}

json GenerationJson(const Model& model) {
  return {
      {"decoder_start_token_id", model.Id(model.config.t5.start)},
      {"pad_token_id", model.Id(model.config.t5.start)},
      {"eos_token_id", model.Id(model.config.t5.end)},
      {"num_beams", 20},                          // without any, transformers refuses to save what belongs to beams
      {"length_penalty", 0.0},                    // scores are sums of log-probabilities, not divided by a length
      {"max_new_tokens", model.config.steps()}};  // the end token's, too, where it is scored: an import reads it back
}

// Text of every row's token; "" where a row has none.
std::vector<std::string> TokenTexts(const Model& model) {
  std::vector<std::string> texts(model.tokens.size());
  size_t row = 0;
  for (int level = 0; level < model.config.levels(); ++level) {
    for (Code code = 0; code < model.config.level_sizes[level]; ++code) texts[row++] = sid::SidToken(level, code);
  }
  for (; row < texts.size(); ++row) texts[row] = absl::StrCat("<token_", model.tokens[row], ">");
  texts[model.config.t5.end] = "</s>";
  texts[model.config.t5.start] = "<pad>";
  for (size_t i = 0; i < texts.size(); ++i) {
    if (model.tokens[i] < 0) texts[i].clear();
  }
  return texts;
}

json TemplateJson(const Model& model, const std::vector<std::string>& texts) {
  json single = json::array(), specials = json::object();
  const auto add = [&](int32_t row) {
    single.push_back({{"SpecialToken", {{"id", texts[row]}, {"type_id", 0}}}});
    specials[texts[row]] = {{"id", texts[row]}, {"ids", {model.Id(row)}}, {"tokens", {texts[row]}}};
  };
  for (const int32_t row : model.config.t5.input.prefix) add(row);
  single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
  for (const int32_t row : model.config.t5.input.suffix) add(row);
  json pair = single;
  pair.push_back({{"Sequence", {{"id", "B"}, {"type_id", 0}}}});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", specials}};
}

json TokenizerJson(const Model& model, const std::vector<std::string>& texts) {
  json added = json::array(), words = json::object();
  const auto is_special = [&](int32_t row) { return row == model.config.t5.start || row == model.config.t5.end; };
  std::vector<int32_t> by_id;
  for (size_t row = 0; row < texts.size(); ++row) {
    if (!texts[row].empty()) by_id.push_back(static_cast<int32_t>(row));
  }
  std::sort(by_id.begin(), by_id.end(), [&](int32_t a, int32_t b) { return model.Id(a) < model.Id(b); });
  for (const int32_t row : by_id) {
    words[texts[row]] = model.Id(row);
    added.push_back({{"id", model.Id(row)},
                     {"content", texts[row]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", is_special(row)}});
  }
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Whitespace"}}},
          {"post_processor", TemplateJson(model, texts)},
          {"decoder", nullptr},
          {"model", {{"type", "WordLevel"}, {"vocab", words}, {"unk_token", texts[model.config.t5.start]}}}};
}

json TokenizerConfigJson(const Model& model, const std::vector<std::string>& texts) {
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"pad_token", texts[model.config.t5.start]},
          {"unk_token", texts[model.config.t5.start]},
          {"eos_token", texts[model.config.t5.end]}};
}

std::vector<float> ToFloats(const TensorView& view) {
  if (view.dtype == DType::kF32) {
    const absl::Span<const float> values = view.as<float>();
    return {values.begin(), values.end()};
  }
  std::vector<float> values;
  for (const uint16_t bits : view.as<uint16_t>()) values.push_back(BFloat16ToFloat(bits));
  return values;
}

// Rows by token id.
std::vector<float> ById(const Model& model, const std::vector<float>& rows) {
  const size_t width = rows.size() / model.tokens.size();
  std::vector<float> values(model.vocabulary * width, 0.0f);
  for (size_t row = 0; row < model.tokens.size(); ++row) {
    if (model.tokens[row] < 0) continue;
    std::copy_n(rows.begin() + static_cast<int64_t>(row * width), width,
                values.begin() + static_cast<int64_t>(model.tokens[row] * width));
  }
  return values;
}

// Where a table over the vocabulary goes; empty: no such table.
std::vector<std::string> TableNames(const model::ModelConfig& config, const std::string& name) {
  if (name == "encoder.embedding") return {"encoder.embed_tokens.weight"};
  if (name == "head") return {"lm_head.weight"};
  if (name != "embedding") return {};
  if (OneEmbedding(config)) return {"shared.weight"};
  std::vector<std::string> names = {"shared.weight", "decoder.embed_tokens.weight"};
  if (!config.t5.encoder_embedding) names.push_back("encoder.embed_tokens.weight");
  if (config.decoder.tied_heads) names.push_back("lm_head.weight");
  return names;
}

absl::Status WriteWeights(const Model& model, const SafetensorsFile& file, const std::string& to) {
  const std::vector<model::WeightSpec> schema = model::WeightSchema(model.config);
  std::vector<ExpectedTensor> expected;
  expected.reserve(schema.size());
  for (const model::WeightSpec& spec : schema) {
    expected.push_back({spec.name, {DType::kF32, DType::kBF16}, spec.shape});
  }
  BEAMLINE_RETURN_IF_ERROR(CheckTensors(file, expected));

  SafetensorsWriter writer;
  writer.SetMetadata("format", "pt");
  std::vector<std::vector<float>> values;  // live until Write
  values.reserve(schema.size());
  for (const model::WeightSpec& spec : schema) {
    BEAMLINE_ASSIGN_OR_RETURN(const TensorView view, file.Get(spec.name));
    values.push_back(ToFloats(view));
    std::vector<int64_t> shape = spec.shape;
    if (const std::vector<std::string> tables = TableNames(model.config, spec.name); !tables.empty()) {
      values.back() = ById(model, values.back());
      shape[0] = model.vocabulary;
      for (const std::string& name : tables) BEAMLINE_RETURN_IF_ERROR(writer.Add<float>(name, shape, values.back()));
      continue;
    }
    const std::vector<std::string> parts = HfT5TensorNames(spec.name, model.config.encoder.ffn.gated);
    if (parts.empty()) continue;  // the bias of rows without a token
    shape[0] /= static_cast<int64_t>(parts.size());
    const size_t size = values.back().size() / parts.size();
    for (size_t part = 0; part < parts.size(); ++part) {
      BEAMLINE_RETURN_IF_ERROR(
          writer.Add<float>(parts[part], shape, absl::MakeConstSpan(values.back()).subspan(part * size, size)));
    }
  }
  return writer.Write(to);
}

}  // namespace

absl::Status ExportHf(const ExportHfOptions& options) {
  BEAMLINE_ASSIGN_OR_RETURN(const Model model, LoadModel(options.model));
  std::error_code ignored;
  if (fs::equivalent(options.out, options.model, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.out.string(), ": is the model's own folder, whose files would be lost; name another --out"));
  }
  const std::vector<std::string> texts = TokenTexts(model);
  const std::pair<const char*, json> documents[] = {{"tokenizer.json", TokenizerJson(model, texts)},
                                                    {"tokenizer_config.json", TokenizerConfigJson(model, texts)},
                                                    {"generation_config.json", GenerationJson(model)},
                                                    {"config.json", ConfigJson(model)}};
  BEAMLINE_RETURN_IF_ERROR(CheckHoldsNo(options.out, {kManifestFile, kTrainingFile, kCheckpointFile},
                                        "a bundle or a trained model, which would be lost; name another --out"));
  // Others read them beside what is written here.
  BEAMLINE_RETURN_IF_ERROR(CheckHoldsNo(
      options.out, {"added_tokens.json", "special_tokens_map.json", "spiece.model", "model.safetensors.index.json"},
      "another checkpoint, and would be taken for this one's; remove it, or name another --out"));
  BEAMLINE_RETURN_IF_ERROR(CheckNotThere(options.out / kWeightsFile, options.overwrite));
  for (const auto& [name, document] : documents) {
    BEAMLINE_RETURN_IF_ERROR(CheckNotThere(options.out / name, options.overwrite));
  }
  BEAMLINE_ASSIGN_OR_RETURN(const SafetensorsFile weights,
                            SafetensorsFile::Read((options.model / kWeightsFile).string()));
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(options.out));
  BEAMLINE_RETURN_IF_ERROR(WriteWeights(model, weights, (options.out / kWeightsFile).string()));
  for (const auto& [name, document] : documents) {
    BEAMLINE_RETURN_IF_ERROR(WriteFileAtomically(options.out / name, document.dump(2) + "\n"));
  }
  return absl::OkStatus();
}

}  // namespace beamline::runtime
