// SPDX-License-Identifier: Apache-2.0
//
// config.json and generation_config.json of a Hugging Face T5ForConditionalGeneration folder, as transformers 4 and 5
// write them. Every field that decides what the model computes is read and checked; fields that are absent have the
// defaults of transformers' T5Config. Errors list all problems with file, field, limit and value. Pure but for reading.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/config.h"

namespace beamline::runtime {

struct HfT5Config {
  int vocabulary = 0;  // rows of the embedding
  int d_model = 0, d_kv = 0, d_ff = 0, heads = 0;
  int encoder_layers = 0, decoder_layers = 0;
  int relative_buckets = 0, relative_max_distance = 0;
  double norm_epsilon = 0;
  bool gated = false;
  model::T5Activation activation = model::T5Activation::kRelu;
  // transformers 5 says it in scale_decoder_outputs; before, tie_word_embeddings meant this too. Whether the head is
  // tied is told by the weights alone.
  bool scale_head = true;
  int64_t start_token = 0, end_token = 0;
  // Of generate, by generation_config.json's max_new_tokens or, less the start token, its older max_length.
  std::optional<int64_t> max_new_tokens;
  std::vector<std::string> notes;  // settings of generate that Beamline does not apply
};

absl::StatusOr<HfT5Config> ReadHfT5Config(const std::filesystem::path& folder);

}  // namespace beamline::runtime
