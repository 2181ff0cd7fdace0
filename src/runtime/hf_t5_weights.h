// SPDX-License-Identifier: Apache-2.0
//
// The weights of a Hugging Face T5ForConditionalGeneration folder (model.safetensors, or the shards that
// model.safetensors.index.json lists) as those of model/weight_schema.h: projections of one input joined, vocabulary
// rows in a new order. The file is checked in full first: every tensor there and none besides, shapes, dtypes, finite
// values. Pickled checkpoints (pytorch_model.bin) are refused.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/safetensors.h"
#include "model/config.h"
#include "runtime/hf_t5_config.h"

namespace beamline::runtime {

// The checkpoint's tensors that the tensor `name` of model/weight_schema.h is made of, one below the other, in equal
// parts. Empty: a tensor over the vocabulary.
std::vector<std::string> HfT5TensorNames(const std::string& name, bool gated);

class HfT5Weights {
 public:
  // Reads and checks against `config`.
  static absl::StatusOr<HfT5Weights> Read(const std::filesystem::path& folder, const HfT5Config& config);

  int64_t vocabulary() const { return vocabulary_; }               // rows of the embedding
  bool tied_head() const { return head_ == decoder_; }             // the head is the decoder's embedding
  bool encoder_embedding() const { return encoder_ != decoder_; }  // the encoder has one of its own

  // model.safetensors of `config`, in which row r of the vocabulary is token tokens[r]; -1: a row of no token.
  absl::Status WriteAs(const model::ModelConfig& config, absl::Span<const int64_t> tokens,
                       const std::string& path) const;

 private:
  absl::Status Check(const std::string& folder, const HfT5Config& config);
  absl::Status FindEmbeddings(const HfT5Config& config);
  std::vector<float> Values(const std::string& name) const;
  std::vector<float> Rows(const std::string& name, absl::Span<const int64_t> tokens) const;
  std::vector<float> Joined(absl::Span<const std::string> names) const;
  std::vector<float> ValuesOf(const std::string& spec_name, const model::ModelConfig& config,
                              absl::Span<const int64_t> tokens) const;

  std::string source_;                  // for messages
  std::vector<SafetensorsFile> files_;  // what the views point into
  std::map<std::string, TensorView> tensors_;
  // Tensors of the vocabulary by their use; equal contents have one name.
  std::string encoder_, decoder_, head_;
  int64_t vocabulary_ = 0;
};

}  // namespace beamline::runtime
