// SPDX-License-Identifier: Apache-2.0
//
// The tokens of a Hugging Face tokenizer folder: text -> id, from the files that say so (tokenizer.json with its
// model's vocabulary and added tokens, added_tokens.json, tokenizer_config.json), never from arithmetic: added tokens
// stand in whatever order they were added in. Files that disagree about a token are refused. No text is ever tokenized
// here: SIDs are single tokens, and the rest of an input is a template. Pure values.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"

namespace beamline::runtime {

struct HfTokenizer {
  std::string source;                             // the folder, for messages
  absl::flat_hash_map<std::string, int64_t> ids;  // every token there is
  int64_t size = 0;                               // largest id + 1
  // What the tokenizer puts around a single sequence: tokenizer.json's TemplateProcessing, or, in a folder without
  // tokenizer.json, the end token of a T5Tokenizer.
  std::vector<int64_t> prefix, suffix;
  std::string unknown_template;  // what is known is not enough, and why; empty: it is

  // NOT_FOUND names the token and the folder.
  absl::StatusOr<int64_t> Id(const std::string& token) const;
};

// `end_id`: what the model's configuration gives the end token, where the files leave that to spiece.model, which is
// not read (a T5Tokenizer as transformers saved it before 4.34). Errors: a folder without any of the files, a file that
// is not what it should be, a token with two ids.
absl::StatusOr<HfTokenizer> ReadHfTokenizer(const std::filesystem::path& folder, int64_t end_id);

}  // namespace beamline::runtime
