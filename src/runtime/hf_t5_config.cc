// SPDX-License-Identifier: Apache-2.0
#include "runtime/hf_t5_config.h"

#include <algorithm>
#include <system_error>
#include <tuple>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "base/json.h"
#include "base/json_object_reader.h"
#include "beamline/status.h"
#include "runtime/hf_text.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr char kArchitecture[] = "T5ForConditionalGeneration";

// Training scripts derive classes of their own from it (LETTER's is LETTER), and its tensors are what they save; what
// transformers calls T5 otherwise has no head, or another one.
void CheckKind(JsonObjectReader& reader, HfT5Config& config) {
  std::string model_type;
  const size_t before = reader.problems().size();
  reader.String("model_type", model_type);
  if (reader.problems().size() == before && model_type != "t5") {
    reader.Problem("model_type", absl::StrCat("must be t5, is '", model_type, "'"));
  }
  const json* architectures = reader.Find("architectures", false);
  if (architectures == nullptr || architectures->is_null()) return;
  bool foreign = false;  // transformers' own, of another purpose
  for (const json& name : *architectures) {
    if (name == kArchitecture) return;
    foreign |= !name.is_string() || absl::StrContains(name.get<std::string>(), "T5");
  }
  if (foreign || architectures->empty()) {
    reader.Problem("architectures", absl::StrCat("must name ", kArchitecture, ", is ", architectures->dump()));
    return;
  }
  config.notes.push_back(absl::StrCat("config.json: architectures is ", HfText(architectures->dump()), ", taken for a ",
                                      kArchitecture, "; code of its own that changes logits is not applied"));
}

// Before anything is made of them; how they fit together is for model::ValidateConfig to say.
void CheckSizes(JsonObjectReader& reader, const HfT5Config& config) {
  const int buckets = std::clamp(config.relative_buckets, model::kMinRelativeBuckets, model::kMaxRelativeBuckets);
  const std::tuple<const char*, int, int, int> sizes[] = {
      {"vocab_size", config.vocabulary, 1, model::kMaxT5Vocabulary},
      {"d_model", config.d_model, 1, model::kMaxDModel},
      {"d_kv", config.d_kv, 1, model::kMaxHeadDim},
      {"d_ff", config.d_ff, 1, model::kMaxFfnWidth},
      {"num_heads", config.heads, 1, model::kMaxHeads},
      {"num_layers", config.encoder_layers, 1, model::kMaxLayers},
      {"num_decoder_layers", config.decoder_layers, 1, model::kMaxLayers},
      {"relative_attention_num_buckets", config.relative_buckets, model::kMinRelativeBuckets,
       model::kMaxRelativeBuckets},
      {"relative_attention_max_distance", config.relative_max_distance, buckets / 2 + 1, model::kMaxRelativeDistance}};
  for (const auto& [key, value, least, most] : sizes) {
    if (value < least || value > most) {
      reader.Problem(key, absl::StrCat("must lie in [", least, ", ", most, "], is ", value));
    }
  }
  if (!(config.norm_epsilon > 0 && config.norm_epsilon <= 0.1)) {
    reader.Problem("layer_norm_epsilon", absl::StrCat("must lie in (0, 0.1], is ", config.norm_epsilon));
  }
}

// transformers reads "gated-gelu" as the tanh form, a plain "gelu" as the exact one, which T5Activation has not.
// dense_act_fn and is_gated_act, which it derives from the name and saves beside it, win where they say otherwise.
void ReadActivation(JsonObjectReader& reader, HfT5Config& config) {
  std::string name = "relu";
  reader.String("feed_forward_proj", name, false);
  absl::string_view function = name;
  config.gated = absl::ConsumePrefix(&function, "gated-");
  if (name == "gated-gelu") function = "gelu_new";
  std::string own(function);
  reader.String("dense_act_fn", own, false);
  reader.Bool("is_gated_act", config.gated, false);
  const bool overridden = own != function;
  if (overridden) name = own, function = own;
  if (function == "relu") {
    config.activation = model::T5Activation::kRelu;
  } else if (function == "gelu_new") {
    config.activation = model::T5Activation::kGelu;
  } else if (function == "silu" || function == "swish") {
    config.activation = model::T5Activation::kSilu;
  } else {
    reader.Problem(
        overridden ? "dense_act_fn" : "feed_forward_proj",
        absl::StrCat("must be relu, gelu_new or silu, or gated- and one of them, or gated-gelu, is '", name, "'"));
  }
}

// A token id, or (for the end token) a list of one. null counts as absent.
bool ReadToken(const char* key, JsonObjectReader& reader, int64_t& token) {
  const json* value = reader.Find(key, false);
  if (value == nullptr || value->is_null()) return false;
  if (value->is_array() && value->size() == 1) value = &value->at(0);
  if (!value->is_number_unsigned()) {
    reader.Problem(key, absl::StrCat("must be one token id, is ", value->dump()));
    return true;
  }
  reader.ReadInt(key, *value, token);
  return true;
}

absl::Status Problems(const fs::path& path, const std::vector<std::string>& problems) {
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(path.string(), ":\n", absl::StrJoin(problems, "\n")));
}

constexpr JsonLimits kConfigLimits{.max_depth = 16, .max_bytes = 4 << 20};

// Settings that would change generate's answers, where they are not at their neutral values.
void NoteGeneration(const json& document, const std::string& file, HfT5Config& config) {
  const std::pair<const char*, json> neutral[] = {{"repetition_penalty", 1.0},
                                                  {"encoder_repetition_penalty", 1.0},
                                                  {"no_repeat_ngram_size", 0},
                                                  {"encoder_no_repeat_ngram_size", 0},
                                                  {"do_sample", false},
                                                  {"num_beam_groups", 1},
                                                  {"length_penalty", 0.0},
                                                  {"diversity_penalty", 0.0},
                                                  {"guidance_scale", 1.0},
                                                  {"watermarking_config", nullptr},
                                                  {"min_length", 0},
                                                  {"min_new_tokens", 0},
                                                  {"exponential_decay_length_penalty", nullptr},
                                                  {"renormalize_logits", false},
                                                  {"forced_bos_token_id", nullptr},
                                                  {"forced_eos_token_id", nullptr},
                                                  {"suppress_tokens", nullptr},
                                                  {"begin_suppress_tokens", nullptr},
                                                  {"bad_words_ids", nullptr},
                                                  {"sequence_bias", nullptr}};
  for (const auto& [key, value] : neutral) {
    const json actual = document.value(key, json());
    if (actual.is_null() || actual == value) continue;
    config.notes.push_back(
        absl::StrCat(file, ": ", key, " is ", HfText(actual.dump()), ", which Beamline does not apply"));
  }
}

struct Tokens {
  bool start = false, end = false;
};

void ReadLength(JsonObjectReader& reader, HfT5Config& config) {
  const json* most = reader.Find("max_new_tokens", false);
  const json* longest = reader.Find("max_length", false);  // the older name; counts the start token
  int32_t length = 0;
  if (most != nullptr && !most->is_null()) {
    reader.ReadInt("max_new_tokens", *most, length);
    config.max_new_tokens = length;
  } else if (longest != nullptr && !longest->is_null()) {
    reader.ReadInt("max_length", *longest, length);
    config.max_new_tokens = int64_t{length} - 1;
  }
}

// generate takes everything from generation_config.json where there is one, else from config.json.
absl::StatusOr<Tokens> ReadGenerationConfig(const fs::path& path, const json& model, HfT5Config& config) {
  Tokens found;
  std::error_code error;
  if (!fs::exists(path, error)) {
    NoteGeneration(model, "config.json", config);
    std::vector<std::string> problems;
    JsonObjectReader reader(model, "", problems);
    ReadLength(reader, config);
    BEAMLINE_RETURN_IF_ERROR(Problems(path.parent_path() / "config.json", problems));
    return found;
  }
  BEAMLINE_ASSIGN_OR_RETURN(const json document, ReadJsonObject(path.string(), kConfigLimits));
  std::vector<std::string> problems;
  JsonObjectReader reader(document, "", problems);
  found.start = ReadToken("decoder_start_token_id", reader, config.start_token) ||
                ReadToken("bos_token_id", reader, config.start_token);  // as generate does
  found.end = ReadToken("eos_token_id", reader, config.end_token);
  ReadLength(reader, config);
  NoteGeneration(document, path.filename().string(), config);
  BEAMLINE_RETURN_IF_ERROR(Problems(path, problems));
  return found;
}

}  // namespace

absl::StatusOr<HfT5Config> ReadHfT5Config(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  BEAMLINE_ASSIGN_OR_RETURN(const json document, ReadJsonObject(path.string(), kConfigLimits));
  std::vector<std::string> problems;
  JsonObjectReader reader(document, "", problems);
  HfT5Config config{.vocabulary = 32128,
                    .d_model = 512,
                    .d_kv = 64,
                    .d_ff = 2048,
                    .heads = 8,
                    .encoder_layers = 6,
                    .relative_buckets = 32,
                    .relative_max_distance = 128,
                    .norm_epsilon = 1e-6};
  CheckKind(reader, config);
  // The first names are those that transformers' configs share; where both stand there, they win.
  const std::tuple<const char*, const char*, int&> sizes[] = {
      {"hidden_size", "d_model", config.d_model},
      {"head_dim", "d_kv", config.d_kv},
      {"num_attention_heads", "num_heads", config.heads},
      {"num_hidden_layers", "num_layers", config.encoder_layers}};
  for (const auto& [shared, own, value] : sizes) {
    reader.Int(own, value, false);
    reader.Int(shared, value, false);
  }
  reader.Int("vocab_size", config.vocabulary, false);
  reader.Int("d_ff", config.d_ff, false);
  config.decoder_layers = config.encoder_layers;
  const json* depth = reader.Find("num_decoder_layers", false);
  if (depth != nullptr && !depth->is_null()) reader.ReadInt("num_decoder_layers", *depth, config.decoder_layers);
  reader.Int("relative_attention_num_buckets", config.relative_buckets, false);
  reader.Int("relative_attention_max_distance", config.relative_max_distance, false);
  reader.Double("layer_norm_epsilon", config.norm_epsilon, false);
  CheckSizes(reader, config);
  ReadActivation(reader, config);
  for (const char* key : {"tie_word_embeddings", "scale_decoder_outputs"}) {  // null: the first is true, the second not
    const json* value = reader.Find(key, false);
    if (value == nullptr || !value->is_null()) {
      reader.Bool(key, config.scale_head, false);
    } else {
      config.scale_head = absl::string_view(key) == "tie_word_embeddings";
    }
  }

  BEAMLINE_ASSIGN_OR_RETURN(const Tokens generation,
                            ReadGenerationConfig(folder / "generation_config.json", document, config));
  int64_t start = 0, end = 1;
  const bool has_start = ReadToken("decoder_start_token_id", reader, start) || ReadToken("bos_token_id", reader, start);
  ReadToken("eos_token_id", reader, end);
  if (!generation.start) config.start_token = start;
  if (!generation.end) config.end_token = end;
  if (!generation.start && !has_start) {
    reader.Problem("decoder_start_token_id", "is missing, here and in generation_config.json");
  }
  BEAMLINE_RETURN_IF_ERROR(Problems(path, problems));
  return config;
}

}  // namespace beamline::runtime
