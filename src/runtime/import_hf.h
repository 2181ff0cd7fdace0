// SPDX-License-Identifier: Apache-2.0
//
// A Hugging Face T5ForConditionalGeneration folder and a SID index -> a bundle of family t5. Nothing is computed anew:
// the weights are the checkpoint's, rows of the vocabulary in another order (runtime/t5_vocabulary.h), token ids are
// the tokenizer's. Every input is checked in full before anything is written; errors name file, field, limit and value.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/progress.h"
#include "model/config.h"
#include "runtime/pack.h"
#include "sid/sid_index.h"

namespace beamline::runtime {

struct ImportHfOptions {
  std::filesystem::path folder;  // config.json, generation_config.json, model.safetensors or shards, tokenizer files
  std::string sid_index;
  std::string dialect = "letter";  // letter, minionerec, minionerec-info, openonerec or tsv
  sid::SidIndexOptions index;
  std::filesystem::path items;  // item table for the catalogue; empty: items without attributes
  // How a history becomes the encoder's input: prefix, SIDs of the newest max_items items, suffix. Tokens by their
  // text; nullopt: what the tokenizer puts around a sequence.
  std::optional<std::vector<std::string>> prefix, suffix;
  int max_items = 20;
  // transformers' max_new_tokens above the levels, whose last step takes the end token; so it is too where
  // generation_config.json says that.
  bool score_end = false;
  std::filesystem::path out;
  std::filesystem::path model_out;  // keep the parts here too, for `beamline train` and `evaluate`; empty: no
  std::string model_version;        // empty: derived
  bool overwrite = false;           // replace a bundle in `out` and a model in `model_out`
};

struct ImportHfResult {
  PackResult pack;
  model::ModelConfig config;
  int64_t codes_without_token = 0;
  sid::BadRows bad_rows;
  std::vector<std::string> notes;
};

// Thread-safe but for the folders it writes to; `progress` may be null. Errors besides those of the inputs:
// ALREADY_EXISTS where `out` or `model_out` hold something that `overwrite` does not cover, asked first.
absl::StatusOr<ImportHfResult> ImportHf(const ImportHfOptions& options, Progress* progress = nullptr);

}  // namespace beamline::runtime
