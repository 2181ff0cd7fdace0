// SPDX-License-Identifier: Apache-2.0
//
// What a model is, as a plain value without torch, read from and written to a bundle's config.json: the sizes all
// families share, the pathways and their features of onerec_v1 (2506.13695; feature_index.h says what each id means),
// and the vocabulary and input template of t5 (model/t5_config.h). Load refuses whatever the model could not be built
// from, naming the JSON path, the limit and the value, before anything is allocated.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "beamline/types.h"
#include "model/t5_config.h"

namespace beamline::model {

inline constexpr int kConfigSchemaVersion = 1;
inline constexpr uint64_t kMaxConfigBytes = 1 << 20;

// What ValidateConfig takes, for those who read the same sizes under other names.
inline constexpr int kMaxLayers = 256;
inline constexpr int kMaxDModel = 16384;
inline constexpr int kMaxHeads = 256;
inline constexpr int kMaxHeadDim = 1024;
inline constexpr int kMaxFfnWidth = 262144;
inline constexpr int kMaxT5Vocabulary = 1 << 24;
inline constexpr int kMinRelativeBuckets = 4, kMaxRelativeBuckets = 4096;
inline constexpr int kMaxRelativeDistance = 1 << 20;

// One property of an element of a pathway. Columns of EncoderBatch::features follow the order of the features; each
// takes one column, kSid one per level. kToken is a row of t5's embedding and the only feature there.
enum class FeatureKind { kSid, kItem, kAuthor, kTag, kAge, kGap, kHour, kPlay, kDuration, kLabels, kToken };

struct FeatureConfig {
  FeatureKind kind = FeatureKind::kSid;
  int64_t buckets = 0;  // rows of the table; fixed for sid (its level sizes), hour (25) and labels (8): leave 0 there
  int width = 0;        // of the embedding; with InputFusion::kSum, and for a shared sid, it is d_model: leave 0 there
  bool shared = false;  // sid only: use the decoder's code embeddings instead of tables of its own
};

// How the features of one element become a token: concat -> Dense, LeakyReLU, Dense (the paper), or their plain sum
// (fewer weights; better where the log is small).
enum class InputFusion { kConcatMlp, kSum };

struct PathwayConfig {
  int length = 0;  // most elements kept; 0: the pathway is off
  InputFusion fusion = InputFusion::kConcatMlp;
  std::vector<FeatureConfig> features;

  bool enabled() const { return length > 0; }
};

// One token for who the user is. Columns: the user id (where user_buckets > 0), then each attribute by name.
struct StaticConfig {
  int64_t user_buckets = 0;  // 0: the user id is not a feature
  int64_t attribute_buckets = 1024;
  std::vector<std::string> attributes;
  int width = 64;
  bool enabled = false;

  int columns() const { return enabled ? (user_buckets > 0 ? 1 : 0) + static_cast<int>(attributes.size()) : 0; }
};

struct FeedForwardConfig {
  int width = 0;
  bool gated = true;  // SwiGLU; false: two matrices around gelu. (t5: gated or not, around its own activation)
  int experts = 0;    // 0: dense. Experts are SwiGLU of `width`
  int top_k = 0;
  int shared_experts = 0;
};

struct EncoderConfig {
  int layers = 0;
  bool causal = false;  // true: every position of a history trains in one pass, and a cached context can be appended to
  FeedForwardConfig ffn;
};

struct DecoderConfig {
  int layers = 0;
  int trunk_layers = 0;    // the first K layers run once per request, without codes (LazyAR); 0: the paper's decoder
  bool tied_heads = true;  // level t's head is its code embedding
  FeedForwardConfig ffn;
};

// What a user does with a candidate, and what its probability counts for in the candidate's value.
struct RankerHead {
  uint32_t label = 0;  // a bit of beamline::Label
  double weight = 1;
};

inline constexpr int kMaxRankerWidth = 4096;

// Orders the candidates of a search by their value (model/ranker.h). Of onerec_v1 with two levels or more.
struct RankerConfig {
  int width = 0;  // of its hidden layer, a multiple of 8; 0: the model has no ranker
  std::vector<RankerHead> heads;
  double score_weight = 1;  // of the beam's score, how likely the candidate comes next, in nats

  bool enabled() const { return width > 0; }
};

inline constexpr char kOneRecV1[] = "onerec_v1";
inline constexpr char kT5[] = "t5";

struct ModelConfig {
  std::string family = kOneRecV1;
  std::vector<uint32_t> level_sizes;  // [levels] codes per level
  int d_model = 0;
  int heads = 0;
  int head_dim = 0;  // 0 in JSON: d_model / heads
  double norm_epsilon = 1e-6;
  EncoderConfig encoder;  // t5: neither causal nor with experts
  DecoderConfig decoder;  // t5: neither trunk nor experts
  RankerConfig ranker;    // t5: none

  // onerec_v1. In t5 the short-term pathway is the sequence of tokens, of the length that the template comes to, and
  // the others are off.
  StaticConfig user;
  PathwayConfig short_term;
  PathwayConfig positive;

  T5Config t5;  // of family t5 alone

  bool is_t5() const { return family == kT5; }
  int levels() const { return static_cast<int>(level_sizes.size()); }
  // Decode steps: one per level, and one more where the model scores an end token.
  int steps() const { return levels() + (is_t5() && t5.score_end ? 1 : 0); }
  // The column of code 0 in the logits of `step`; of the end token at the step after the last level.
  int first_code(int step) const;
  int inner() const { return heads * head_dim; }
  // Tokens of a full context: static 1, short-term, positive feedback.
  int max_tokens() const { return (user.enabled ? 1 : 0) + short_term.length + positive.length; }
};

// Sets the short-term pathway of a t5 model to what its template asks for: do it after the template has changed.
void SetT5Pathway(ModelConfig& config);

// Columns a pathway's features take, and one feature's fixed or configured rows and width.
int FeatureColumns(const ModelConfig& config, const PathwayConfig& pathway);
int64_t FeatureBuckets(const FeatureConfig& feature);
int FeatureWidth(const ModelConfig& config, const PathwayConfig& pathway, const FeatureConfig& feature);
absl::string_view FeatureName(FeatureKind kind);

// What is wrong, one line each: path, limit, value. Sizes above kMax* are refused as absurd.
absl::Status ValidateConfig(const ModelConfig& config);

// JSON text <-> config. Unknown keys, wrong types and missing keys are errors with their path, but what a model may do
// without (a pathway, experts, a ranker's weights) may be left out; ToJson of a valid config parses back to the same.
absl::StatusOr<ModelConfig> ParseConfig(absl::string_view json, absl::string_view source_name);
absl::StatusOr<ModelConfig> LoadConfig(const std::string& path);
std::string ConfigToJson(const ModelConfig& config);
absl::Status SaveConfig(const ModelConfig& config, const std::string& path);

// "demo", "small", and the paper's "0.015B", "0.121B", "0.935B", "2.633B". `level_sizes` replaces the preset's own
// where it is not empty; `items` and `authors` size the tables of the item and author features that a preset has;
// `attributes` are the user attributes of the log, which the paper's presets read into their static token.
struct PresetOptions {
  std::string name;
  std::vector<uint32_t> level_sizes;
  int64_t items = 0;
  int64_t authors = 0;
  std::vector<std::string> attributes;
};
absl::StatusOr<ModelConfig> PresetConfig(const PresetOptions& options);
std::vector<std::string> PresetNames();

}  // namespace beamline::model
