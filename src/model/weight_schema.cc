// SPDX-License-Identifier: Apache-2.0
#include "model/weight_schema.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/memory.h"

namespace beamline::model {
namespace {

constexpr double kEmbeddingStddev = 0.02;
constexpr double kT5EmbeddingStddev = 1.0;

class SchemaBuilder {
 public:
  explicit SchemaBuilder(const ModelConfig& config) : config_(config) {}

  std::vector<WeightSpec> Build() {
    config_.is_t5() ? Vocabulary() : Inputs();
    Encoder();
    Decoder();
    config_.is_t5() ? VocabularyHead() : LevelHeads();
    if (config_.ranker.enabled()) Ranker();
    return std::move(specs_);
  }

 private:
  void Add(WeightSpec spec) { specs_.push_back(std::move(spec)); }
  void Table(std::string name, int64_t rows, int64_t width) {
    Add({.name = std::move(name),
         .shape = {rows, width},
         .initializer = Initializer::kNormal,
         .stddev = config_.is_t5() ? kT5EmbeddingStddev : kEmbeddingStddev,
         .role = WeightRole::kEmbedding});
  }
  // Normal with the variance of a matrix that keeps the scale of its input; what writes to the residual stream starts
  // smaller the deeper the stack. t5: as Hugging Face initialises it, in^-1/2 wherever it writes.
  void Matrix(std::string name, int64_t out, int64_t in, double scale = 1) {
    const double width = static_cast<double>(in);
    Add({.name = std::move(name),
         .shape = {out, in},
         .initializer = Initializer::kNormal,
         .stddev = config_.is_t5() ? 1 / std::sqrt(width) : scale / std::sqrt(3.0 * width),
         .role = WeightRole::kMatrix});
  }
  // A projection whose first rows are the queries: t5 scales them here instead of the scores.
  void QueryMatrix(std::string name, int64_t out) {
    Matrix(std::move(name), out, config_.d_model);
    if (!config_.is_t5()) return;
    specs_.back().leading_rows = config_.inner();
    specs_.back().leading_stddev = specs_.back().stddev / std::sqrt(static_cast<double>(config_.head_dim));
  }
  // Of what was added last; see WeightSplit.
  void Split(int axis, int parts = 1) { specs_.back().split = {axis, parts}; }
  void Vector(std::string name, int64_t size, Initializer initializer) {
    Add({.name = std::move(name), .shape = {size}, .initializer = initializer, .role = WeightRole::kVector});
  }
  void Norm(std::string name) { Vector(std::move(name), config_.d_model, Initializer::kOnes); }
  void Dense(const std::string& name, int64_t out, int64_t in) {
    Matrix(absl::StrCat(name, ".weight"), out, in);
    Vector(absl::StrCat(name, ".bias"), out, Initializer::kZeros);
  }

  void Inputs() {
    Codes();
    Static();
    Pathway("short_term", config_.short_term);
    Pathway("positive", config_.positive);
    Table("position", config_.max_tokens(), config_.d_model);
  }

  void Vocabulary() {
    Table("embedding", config_.t5.vocabulary, config_.d_model);
    if (config_.t5.encoder_embedding) Table("encoder.embedding", config_.t5.vocabulary, config_.d_model);
    for (const char* name : {"encoder.relative_bias", "decoder.relative_bias"}) {
      Add({.name = name,
           .shape = {config_.t5.relative_buckets, config_.heads},
           .initializer = Initializer::kNormal,
           .stddev = 1 / std::sqrt(static_cast<double>(config_.d_model)),
           .role = WeightRole::kVector});
      Split(1);  // heads
    }
  }

  void VocabularyHead() {
    if (!config_.decoder.tied_heads) {
      Add({.name = "head",
           .shape = {config_.t5.vocabulary, config_.d_model},
           .initializer = Initializer::kNormal,
           .stddev = kT5EmbeddingStddev,
           .role = WeightRole::kMatrix});
      Split(0);
    }
    if (config_.t5.padded) {
      Add({.name = "head_bias",
           .shape = {config_.t5.vocabulary},
           .initializer = Initializer::kZeros,
           .role = WeightRole::kBuffer});
    }
  }

  // The last level's table is there only for who reads it: a tied head or a shared sid feature.
  void Codes() {
    bool last_level = config_.decoder.tied_heads;
    for (const PathwayConfig* pathway : {&config_.short_term, &config_.positive}) {
      if (!pathway->enabled()) continue;
      for (const FeatureConfig& feature : pathway->features) last_level |= feature.shared;
    }
    for (int level = 0; level < config_.levels() - (last_level ? 0 : 1); ++level) {
      Table(absl::StrCat("codes.", level), config_.level_sizes[level], config_.d_model);
    }
    Add({.name = "bos",
         .shape = {config_.d_model},
         .initializer = Initializer::kNormal,
         .stddev = kEmbeddingStddev,
         .role = WeightRole::kEmbedding});
  }

  void Static() {
    const StaticConfig& user = config_.user;
    if (!user.enabled) return;
    if (user.user_buckets > 0) Table("static.user", user.user_buckets, user.width);
    for (size_t i = 0; i < user.attributes.size(); ++i) {
      Table(absl::StrCat("static.attribute.", i), user.attribute_buckets, user.width);
    }
    Dense("static.dense1", config_.d_model, static_cast<int64_t>(user.columns()) * user.width);
    Dense("static.dense2", config_.d_model, config_.d_model);
  }

  void Pathway(const std::string& name, const PathwayConfig& pathway) {
    if (!pathway.enabled()) return;
    int64_t width = 0;
    for (const FeatureConfig& feature : pathway.features) {
      const int64_t w = FeatureWidth(config_, pathway, feature);
      width += w * (feature.kind == FeatureKind::kSid ? config_.levels() : 1);
      if (!feature.shared && tables_.insert(feature.kind).second) FeatureTables(feature, w);
    }
    if (pathway.fusion == InputFusion::kSum) return;
    Dense(absl::StrCat(name, ".dense1"), config_.d_model, width);
    Dense(absl::StrCat(name, ".dense2"), config_.d_model, config_.d_model);
  }

  void FeatureTables(const FeatureConfig& feature, int64_t width) {
    if (feature.kind != FeatureKind::kSid) {
      return Table(absl::StrCat("features.", FeatureName(feature.kind)), FeatureBuckets(feature), width);
    }
    for (int level = 0; level < config_.levels(); ++level) {
      Table(absl::StrCat("features.sid.", level), config_.level_sizes[level], width);
    }
  }

  void FeedForward(const std::string& layer, const FeedForwardConfig& ffn, double scale) {
    const int64_t d = config_.d_model, width = ffn.width;
    if (ffn.experts == 0) {
      Matrix(absl::StrCat(layer, ".ffn.up"), ffn.gated ? 2 * width : width, d);
      Split(0, ffn.gated ? 2 : 1);
      Matrix(absl::StrCat(layer, ".ffn.down"), d, width, scale);
      Split(1);
      return;
    }
    Matrix(absl::StrCat(layer, ".moe.gate"), ffn.experts, d);
    Add({.name = absl::StrCat(layer, ".moe.bias"),
         .shape = {ffn.experts},
         .initializer = Initializer::kZeros,
         .role = WeightRole::kBuffer});
    Add({.name = absl::StrCat(layer, ".moe.up"),
         .shape = {ffn.experts, 2 * width, d},
         .initializer = Initializer::kNormal,
         .stddev = 1 / std::sqrt(3.0 * static_cast<double>(d)),
         .role = WeightRole::kMatrix});
    Split(1, 2);  // of every expert
    Add({.name = absl::StrCat(layer, ".moe.down"),
         .shape = {ffn.experts, d, width},
         .initializer = Initializer::kNormal,
         .stddev = scale / std::sqrt(3.0 * static_cast<double>(width)),
         .role = WeightRole::kMatrix});
    Split(2);
    if (ffn.shared_experts == 0) return;
    Matrix(absl::StrCat(layer, ".moe.shared_up"), 2 * width * ffn.shared_experts, d);
    Split(0, 2);
    Matrix(absl::StrCat(layer, ".moe.shared_down"), d, width * ffn.shared_experts, scale);
    Split(1);
  }

  void Encoder() {
    const double scale = 1 / std::sqrt(2.0 * std::max(1, config_.encoder.layers));
    for (int layer = 0; layer < config_.encoder.layers; ++layer) {
      const std::string name = absl::StrCat("encoder.", layer);
      Norm(absl::StrCat(name, ".attention_norm"));
      QueryMatrix(absl::StrCat(name, ".attention.qkv"), 3 * config_.inner());
      Split(0, 3);
      Matrix(absl::StrCat(name, ".attention.out"), config_.d_model, config_.inner(), scale);
      Split(1);
      Norm(absl::StrCat(name, ".ffn_norm"));
      FeedForward(name, config_.encoder.ffn, scale);
    }
    Norm("encoder.norm");
  }

  void Decoder() {
    const DecoderConfig& decoder = config_.decoder;
    const double scale = 1 / std::sqrt(3.0 * decoder.layers);
    if (!config_.is_t5()) Table("decoder.position", config_.levels(), config_.d_model);
    for (int layer = 0; layer < decoder.layers; ++layer) {
      const std::string name = absl::StrCat("decoder.", layer);
      Norm(absl::StrCat(name, ".self_norm"));
      QueryMatrix(absl::StrCat(name, ".self.qkv"), 3 * config_.inner());
      Split(0, 3);
      Matrix(absl::StrCat(name, ".self.out"), config_.d_model, config_.inner(), scale);
      Split(1);
      Norm(absl::StrCat(name, ".cross_norm"));
      QueryMatrix(absl::StrCat(name, ".cross.query"), config_.inner());
      Split(0);
      Matrix(absl::StrCat(name, ".cross.key_value"), 2 * config_.inner(), config_.d_model);
      Split(0, 2);
      Matrix(absl::StrCat(name, ".cross.out"), config_.d_model, config_.inner(), scale);
      Split(1);
      Norm(absl::StrCat(name, ".ffn_norm"));
      FeedForward(name, decoder.ffn, scale);
    }
    if (decoder.trunk_layers > 0) Dense("decoder.fusion", config_.d_model, 2 * config_.d_model);
    Norm("decoder.norm");
  }

  void LevelHeads() {
    if (config_.decoder.tied_heads) return;
    for (int level = 0; level < config_.levels(); ++level) {
      Matrix(absl::StrCat("head.", level), config_.level_sizes[level], config_.d_model);
      Split(0);
    }
  }

  // Whole on every rank: the one that searches scores.
  void Ranker() {
    const int64_t width = config_.ranker.width;
    Dense("ranker.state", width, config_.d_model);
    Table("ranker.code", config_.level_sizes.back(), width);
    Dense("ranker.head", static_cast<int64_t>(config_.ranker.heads.size()), width);
  }

  const ModelConfig& config_;
  std::vector<WeightSpec> specs_;
  std::set<FeatureKind> tables_;  // made so far: pathways share them
};

bool IsInput(const std::string& name) {
  for (const char* prefix : {"static.", "short_term.", "positive.", "features."}) {
    if (name.rfind(prefix, 0) == 0) return true;
  }
  return false;
}

// Matrices, and tables that a tied head multiplies with.
bool IsMultiplied(const ModelConfig& config, const WeightSpec& spec) {
  if (spec.role == WeightRole::kMatrix) return true;
  return config.decoder.tied_heads && (spec.name == "embedding" || spec.name.rfind("codes.", 0) == 0);
}

}  // namespace

int64_t WeightSpec::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

std::vector<WeightSpec> WeightSchema(const ModelConfig& config) { return SchemaBuilder(config).Build(); }

ParameterCount CountParameters(const ModelConfig& config) {
  ParameterCount count;
  for (const WeightSpec& spec : WeightSchema(config)) {
    count.total += spec.elements();
    if (IsInput(spec.name)) {
      count.input += spec.elements();
      continue;
    }
    count.network += spec.elements();
    const bool routed = spec.shape.size() == 3;  // [experts, ...]
    const FeedForwardConfig& ffn = spec.name[0] == 'e' ? config.encoder.ffn : config.decoder.ffn;
    count.active += routed ? spec.elements() / ffn.experts * ffn.top_k : spec.elements();
  }
  return count;
}

WeightBytes EstimateWeights(const ModelConfig& config, const WeightStorage& storage) {
  WeightBytes bytes;
  for (const WeightSpec& spec : WeightSchema(config)) {
    const int64_t shared = spec.split.axis < 0 ? 1 : storage.ranks;
    bytes.kept += spec.elements() / shared * (spec.role == WeightRole::kBuffer ? 4 : storage.bytes);
    // Of a whole table that a tied head multiplies with, a rank packs its share.
    const bool whole = spec.split.axis < 0 && spec.role == WeightRole::kMatrix;
    if (IsMultiplied(config, spec)) bytes.kept += spec.elements() / (whole ? 1 : storage.ranks) * storage.packed_bytes;
    bytes.largest = std::max(bytes.largest, spec.elements() * 4);
  }
  return bytes;
}

int64_t EstimateWeightBytes(const ModelConfig& config, const WeightStorage& storage) {
  const WeightBytes bytes = EstimateWeights(config, storage);
  return bytes.kept + bytes.largest;
}

absl::Status CheckMemory(const ModelConfig& config, const WeightStorage& storage, int64_t available_bytes) {
  return beamline::CheckMemory(absl::StrCat("the model's ", CountParameters(config).total, " parameters"),
                               EstimateWeightBytes(config, storage), "use bf16, a smaller model, or more memory",
                               available_bytes);
}

}  // namespace beamline::model
