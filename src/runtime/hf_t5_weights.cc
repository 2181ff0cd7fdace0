// SPDX-License-Identifier: Apache-2.0
#include "runtime/hf_t5_weights.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/problem_list.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "model/weight_schema.h"
#include "runtime/hf_text.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;

constexpr char kShared[] = "shared.weight";
constexpr char kHead[] = "lm_head.weight";
constexpr char kEncoderCopy[] = "encoder.embed_tokens.weight";
constexpr char kDecoderCopy[] = "decoder.embed_tokens.weight";
// In the first T5 checkpoints; no code ever read it.
constexpr char kUnused[] = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight";
constexpr size_t kMaxFileNameBytes = 255;  // of a file, on most file systems
constexpr float kNoToken = -1e30f;  // a bias that leaves nothing of a logit in any sum, and is finite as files must be

std::string Block(const char* stack, int layer, const char* rest) {
  return absl::StrCat(stack, ".block.", layer, ".layer.", rest, ".weight");
}

// The names a stack has for the parts of a feed-forward: layer 1 of the encoder's blocks, 2 of the decoder's.
std::vector<std::string> UpNames(const char* stack, int layer, const char* place, bool gated) {
  const std::string prefix = absl::StrCat(place, ".DenseReluDense.");
  if (!gated) return {Block(stack, layer, absl::StrCat(prefix, "wi").c_str())};
  return {Block(stack, layer, absl::StrCat(prefix, "wi_0").c_str()),
          Block(stack, layer, absl::StrCat(prefix, "wi_1").c_str())};
}

// A config of ours with the checkpoint's sizes: its schema names every tensor.
model::ModelConfig SchemaConfig(const HfT5Config& hf) {
  model::ModelConfig config;
  config.family = model::kT5;
  config.d_model = hf.d_model;
  config.heads = hf.heads;
  config.head_dim = hf.d_kv;
  config.encoder.layers = hf.encoder_layers;
  config.decoder.layers = hf.decoder_layers;
  config.encoder.ffn = config.decoder.ffn = {.width = hf.d_ff, .gated = hf.gated};
  config.t5.relative_buckets = hf.relative_buckets;
  return config;
}

absl::Status RefusePickle(const fs::path& folder) {
  std::error_code error;
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json"}) {
    if (!fs::exists(folder / name, error)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat((folder / name).string(),
                     ": is a pickle, which is never read; load the model with transformers and save it with "
                     "save_pretrained(..., safe_serialization=True)"));
  }
  return absl::NotFoundError(
      absl::StrCat(folder.string(), ": has neither model.safetensors nor model.safetensors.index.json"));
}

// The shards' file names of an index, each once; no name may leave the folder.
absl::StatusOr<std::vector<std::string>> ShardNames(const fs::path& path) {
  BEAMLINE_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(path.string()));
  if (!index.is_object() || !index.contains("weight_map") || !index.at("weight_map").is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": weight_map: must be an object of tensor: file"));
  }
  std::set<std::string> names;
  for (const auto& [tensor, file] : index.at("weight_map").items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    // Messages about the shard will name it as it is here.
    const bool printable = PrintableUtf8(name, kMaxFileNameBytes) == name;
    if (!printable || name.find('/') != std::string::npos || !name.ends_with(".safetensors")) {
      return absl::InvalidArgumentError(absl::StrCat(path.string(), ": weight_map.", HfText(tensor),
                                                     ": must name a .safetensors file beside it, in 1 to ",
                                                     kMaxFileNameBytes, " printable bytes, is ", HfText(file.dump())));
    }
    names.insert(name);
  }
  return std::vector<std::string>(names.begin(), names.end());
}

}  // namespace

std::vector<std::string> HfT5TensorNames(const std::string& name, bool gated) {
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  const char* stack = parts[0] == "encoder" ? "encoder" : "decoder";
  if (name == "encoder.norm" || name == "decoder.norm") return {absl::StrCat(stack, ".final_layer_norm.weight")};
  if (parts.size() == 2 && parts[1] == "relative_bias") {
    return {Block(stack, 0, "0.SelfAttention.relative_attention_bias")};
  }
  int layer = 0;
  if (parts.size() < 3 || !absl::SimpleAtoi(parts[1], &layer)) return {};
  const bool encoder = parts[0] == "encoder";
  const char* ffn = encoder ? "1" : "2";
  const std::string rest = absl::StrJoin(parts.begin() + 2, parts.end(), ".");
  const auto block = [&](const std::string& tail) { return Block(stack, layer, tail.c_str()); };
  if (rest == "attention_norm" || rest == "self_norm") return {block("0.layer_norm")};
  if (rest == "attention.qkv" || rest == "self.qkv") {
    return {block("0.SelfAttention.q"), block("0.SelfAttention.k"), block("0.SelfAttention.v")};
  }
  if (rest == "attention.out" || rest == "self.out") return {block("0.SelfAttention.o")};
  if (rest == "cross_norm") return {block("1.layer_norm")};
  if (rest == "cross.query") return {block("1.EncDecAttention.q")};
  if (rest == "cross.key_value") return {block("1.EncDecAttention.k"), block("1.EncDecAttention.v")};
  if (rest == "cross.out") return {block("1.EncDecAttention.o")};
  if (rest == "ffn_norm") return {block(absl::StrCat(ffn, ".layer_norm"))};
  if (rest == "ffn.up") return UpNames(stack, layer, ffn, gated);
  if (rest == "ffn.down") return {block(absl::StrCat(ffn, ".DenseReluDense.wo"))};
  return {};
}

absl::StatusOr<HfT5Weights> HfT5Weights::Read(const fs::path& folder, const HfT5Config& config) {
  HfT5Weights weights;
  weights.source_ = folder.string();
  std::error_code error;
  std::vector<std::string> names = {"model.safetensors"};
  if (!fs::exists(folder / names[0], error)) {
    const fs::path index = folder / "model.safetensors.index.json";
    if (!fs::exists(index, error)) return RefusePickle(folder);
    BEAMLINE_ASSIGN_OR_RETURN(names, ShardNames(index));
  }
  for (const std::string& name : names) {
    BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
    BEAMLINE_ASSIGN_OR_RETURN(SafetensorsFile file, SafetensorsFile::Read((folder / name).string()));
    for (const auto& [tensor, view] : file.tensors()) {
      if (!weights.tensors_.emplace(tensor, view).second) {
        return absl::InvalidArgumentError(absl::StrCat(folder.string(), ": two shards have a tensor ", tensor));
      }
    }
    weights.files_.push_back(std::move(file));
  }
  BEAMLINE_RETURN_IF_ERROR(weights.Check(folder.string(), config));
  BEAMLINE_RETURN_IF_ERROR(weights.FindEmbeddings(config));
  return weights;
}

absl::Status HfT5Weights::Check(const std::string& folder, const HfT5Config& config) {
  ProblemList problems;
  std::set<std::string> known = {kShared, kHead, kEncoderCopy, kDecoderCopy, kUnused};
  for (const model::WeightSpec& spec : model::WeightSchema(SchemaConfig(config))) {
    const std::vector<std::string> sources = HfT5TensorNames(spec.name, config.gated);
    for (const std::string& name : sources) {
      known.insert(name);
      const auto found = tensors_.find(name);
      if (found == tensors_.end()) {
        problems.Add(absl::StrCat(name, ": is missing"));
        continue;
      }
      std::vector<int64_t> shape = spec.shape;
      shape[0] /= static_cast<int64_t>(sources.size());
      if (found->second.shape != shape) {
        problems.Add(absl::StrCat(name, ": is ", found->second.ToString(), ", config.json makes it [",
                                  absl::StrJoin(shape, ","), "]"));
      }
    }
  }
  for (const auto& [name, view] : tensors_) {
    if (!known.contains(name)) problems.Add(absl::StrCat(name, ": is no tensor of this model"));
    if (view.dtype != DType::kF32 && view.dtype != DType::kBF16 && view.dtype != DType::kF16) {
      problems.Add(absl::StrCat(name, ": is ", view.ToString(), ", must be F32, F16 or BF16"));
    } else if (const int64_t count = CountNonFinite(view); count > 0) {
      problems.Add(absl::StrCat(name, ": ", count, " values are NaN or infinite"));
    }
  }
  if (problems.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(folder, ":\n", problems.ToString()));
}

// A file may hold shared.weight, copies of it for either stack, and a head: any of them alone stands for those that are
// left out; of several without shared.weight, that of the first stack. What is there is used, as transformers does;
// mostly all are equal.
absl::Status HfT5Weights::FindEmbeddings(const HfT5Config& config) {
  std::string shared;
  for (const char* name : {kShared, kEncoderCopy, kDecoderCopy, kHead}) {
    if (shared.empty() && tensors_.contains(name)) shared = name;
  }
  if (shared.empty()) return absl::InvalidArgumentError(absl::StrCat(source_, ": ", kShared, " is missing"));
  const TensorView& embedding = tensors_.at(shared);
  for (const char* name : {kShared, kDecoderCopy, kEncoderCopy, kHead}) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) continue;
    const std::vector<int64_t>& shape = found->second.shape;
    if (shape.size() == 2 && shape[1] == config.d_model && shape == embedding.shape) continue;
    return absl::InvalidArgumentError(absl::StrCat(source_, ": ", name, ": is ", found->second.ToString(),
                                                   ", must be [", embedding.shape.empty() ? 0 : embedding.shape[0], ",",
                                                   config.d_model, "] as ", shared, " and d_model are"));
  }
  vocabulary_ = embedding.shape[0];
  if (config.vocabulary != vocabulary_) {  // from_pretrained refuses it, too
    return absl::InvalidArgumentError(absl::StrCat(source_, ": ", shared, ": is ", embedding.ToString(),
                                                   ", config.json's vocab_size is ", config.vocabulary));
  }
  const auto used = [&](const char* name) { return tensors_.contains(name) ? std::string(name) : shared; };
  const auto equal = [&](const std::string& a, const std::string& b) {
    const TensorView &x = tensors_.at(a), &y = tensors_.at(b);
    return a == b || (x.dtype == y.dtype && std::memcmp(x.bytes.data(), y.bytes.data(), x.bytes.size()) == 0);
  };
  decoder_ = used(kDecoderCopy);
  encoder_ = equal(used(kEncoderCopy), decoder_) ? decoder_ : used(kEncoderCopy);
  head_ = equal(used(kHead), decoder_) ? decoder_ : used(kHead);
  return absl::OkStatus();
}

std::vector<float> HfT5Weights::Values(const std::string& name) const {
  const TensorView& view = tensors_.at(name);
  if (view.dtype == DType::kF32) {
    const absl::Span<const float> values = view.as<float>();
    return {values.begin(), values.end()};
  }
  std::vector<float> values(view.elements());
  const auto* bits = reinterpret_cast<const uint16_t*>(view.bytes.data());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = view.dtype == DType::kBF16 ? BFloat16ToFloat(bits[i]) : HalfToFloat(bits[i]);
  }
  return values;
}

std::vector<float> HfT5Weights::Joined(absl::Span<const std::string> names) const {
  std::vector<float> joined;
  for (const std::string& name : names) {
    const std::vector<float> values = Values(name);
    joined.insert(joined.end(), values.begin(), values.end());
  }
  return joined;
}

std::vector<float> HfT5Weights::Rows(const std::string& name, absl::Span<const int64_t> tokens) const {
  const std::vector<float> values = Values(name);
  const size_t width = static_cast<size_t>(tensors_.at(name).shape[1]);
  std::vector<float> rows(tokens.size() * width, 0.0f);
  for (size_t row = 0; row < tokens.size(); ++row) {
    if (tokens[row] < 0) continue;
    std::copy_n(values.begin() + static_cast<int64_t>(tokens[row] * width), width,
                rows.begin() + static_cast<int64_t>(row * width));
  }
  return rows;
}

std::vector<float> HfT5Weights::ValuesOf(const std::string& spec_name, const model::ModelConfig& config,
                                         absl::Span<const int64_t> tokens) const {
  if (spec_name == "embedding") return Rows(decoder_, tokens);
  if (spec_name == "encoder.embedding") return Rows(encoder_, tokens);
  if (spec_name == "head") return Rows(head_, tokens);
  if (spec_name == "head_bias") {
    std::vector<float> bias(tokens.size(), 0.0f);
    for (size_t row = 0; row < tokens.size(); ++row) bias[row] = tokens[row] < 0 ? kNoToken : 0.0f;
    return bias;
  }
  return Joined(HfT5TensorNames(spec_name, config.encoder.ffn.gated));
}

absl::Status HfT5Weights::WriteAs(const model::ModelConfig& config, absl::Span<const int64_t> tokens,
                                  const std::string& path) const {
  SafetensorsWriter writer;
  const std::vector<model::WeightSpec> schema = model::WeightSchema(config);
  std::vector<std::vector<float>> values;  // live until Write
  values.reserve(schema.size());
  for (const model::WeightSpec& spec : schema) {
    values.push_back(ValuesOf(spec.name, config, tokens));
    BEAMLINE_RETURN_IF_ERROR(writer.Add<float>(spec.name, spec.shape, values.back()));
  }
  return writer.Write(path);
}

}  // namespace beamline::runtime
