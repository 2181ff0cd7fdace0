// SPDX-License-Identifier: Apache-2.0
//
// The order in which a t5 model's bundle holds a tokenizer's tokens (model/t5_config.h): the codes of level 0, of level
// 1, ..., then the rest by id. A code the tokenizer has no token for (no item uses it) gives its row to one of the
// rest, which competes as it should and is never selected; when those run out, the row is padding. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "model/config.h"
#include "runtime/hf_tokenizer.h"
#include "sid/sid_index.h"

namespace beamline::runtime {

struct T5Vocabulary {
  std::vector<int64_t> tokens;  // [rows] the tokenizer's id of each row; -1: padding
  absl::flat_hash_map<int64_t, int32_t> rows;
  int64_t codes_without_token = 0;
  bool padded = false;

  // INVALID_ARGUMENT, opening with `what`, for an id outside the embedding.
  absl::StatusOr<int32_t> Row(int64_t token, absl::string_view what) const;
};

// `named` are tokens that the template and the decoder name; they keep rows behind the codes. Errors: an item whose
// code has no token, a SID token beyond the embedding's `embedding_rows`, two codes with one token.
absl::StatusOr<T5Vocabulary> ArrangeVocabulary(const HfTokenizer& tokenizer, const sid::SidTable& sids,
                                               int64_t embedding_rows, absl::Span<const int64_t> named);

// For a model that is trained here: the id of each row in the tokenizer it would have, which is that of LETTER's code:
// the decoder's start (padding) 0, the end token 1, what else is no code, then the codes' tokens in lexicographic
// order. REQUIRES: a config of family t5 without padded rows.
std::vector<int64_t> NewTokens(const model::ModelConfig& config);

}  // namespace beamline::runtime
