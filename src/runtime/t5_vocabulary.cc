// SPDX-License-Identifier: Apache-2.0
#include "runtime/t5_vocabulary.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "beamline/status.h"

namespace beamline::runtime {
namespace {

// [codes of all levels] token of each code; -1: none.
absl::StatusOr<std::vector<int64_t>> CodeTokens(const HfTokenizer& tokenizer, const sid::SidTable& sids,
                                                int64_t embedding_rows) {
  std::vector<int64_t> tokens;
  absl::flat_hash_set<int64_t> taken;
  for (size_t level = 0; level < sids.level_sizes.size(); ++level) {
    for (Code code = 0; code < sids.level_sizes[level]; ++code) {
      const std::string text = sid::SidToken(static_cast<int>(level), code);
      const auto found = tokenizer.ids.find(text);
      tokens.push_back(found == tokenizer.ids.end() ? -1 : found->second);
      if (tokens.back() < 0) continue;
      if (tokens.back() >= embedding_rows) {
        return absl::InvalidArgumentError(absl::StrCat(
            tokenizer.source, ": token '", text, "' has id ", tokens.back(), ", the embedding has ", embedding_rows,
            " rows; resize_token_embeddings was not called, or the tokenizer "
            "is another model's"));
      }
      if (!taken.insert(tokens.back()).second) {
        return absl::InvalidArgumentError(absl::StrCat(tokenizer.source, ": token '", text, "' has id ", tokens.back(),
                                                       ", as another SID token has"));
      }
    }
  }
  return tokens;
}

absl::Status CheckItems(const HfTokenizer& tokenizer, const sid::SidTable& sids, const std::vector<int64_t>& tokens) {
  for (size_t item = 0; item < sids.items.size(); ++item) {
    size_t first = 0;
    for (size_t level = 0; level < sids.level_sizes.size(); ++level) {
      if (tokens[first + sids.sids[item][static_cast<int>(level)]] < 0) {
        return absl::InvalidArgumentError(absl::StrCat(
            tokenizer.source, ": the tokenizer has no token '",
            sid::SidToken(static_cast<int>(level), sids.sids[item][static_cast<int>(level)]), "', which item ",
            sids.items[item], " needs; take the index and the tokenizer of one training run"));
      }
      first += sids.level_sizes[level];
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int32_t> T5Vocabulary::Row(int64_t token, absl::string_view what) const {
  const auto found = rows.find(token);
  if (found != rows.end()) return found->second;
  return absl::InvalidArgumentError(absl::StrCat(what, ": token ", token, " is outside the embedding"));
}

absl::StatusOr<T5Vocabulary> ArrangeVocabulary(const HfTokenizer& tokenizer, const sid::SidTable& sids,
                                               int64_t embedding_rows, absl::Span<const int64_t> named) {
  T5Vocabulary vocabulary;
  BEAMLINE_ASSIGN_OR_RETURN(vocabulary.tokens, CodeTokens(tokenizer, sids, embedding_rows));
  BEAMLINE_RETURN_IF_ERROR(CheckItems(tokenizer, sids, vocabulary.tokens));
  std::vector<bool> placed(embedding_rows, false);
  for (const int64_t token : vocabulary.tokens) {
    if (token >= 0) placed[token] = true;
  }
  std::vector<bool> fills(embedding_rows, true);  // may take the row of a code without a token
  for (const int64_t token : named) {
    if (token >= 0 && token < embedding_rows) fills[token] = false;
  }
  int64_t next = 0;
  for (int64_t& token : vocabulary.tokens) {
    if (token >= 0) continue;
    ++vocabulary.codes_without_token;
    while (next < embedding_rows && (placed[next] || !fills[next])) ++next;
    if (next == embedding_rows) {
      vocabulary.padded = true;
      continue;
    }
    token = next;
    placed[next] = true;
  }
  for (int64_t token = 0; token < embedding_rows; ++token) {
    if (!placed[token]) vocabulary.tokens.push_back(token);
  }
  for (size_t row = 0; row < vocabulary.tokens.size(); ++row) {
    if (vocabulary.tokens[row] >= 0) vocabulary.rows.emplace(vocabulary.tokens[row], static_cast<int32_t>(row));
  }
  return vocabulary;
}

std::vector<int64_t> NewTokens(const model::ModelConfig& config) {
  std::vector<int64_t> tokens(config.t5.vocabulary, -1);
  int64_t next = 0;
  tokens[config.t5.start] = next++;
  if (config.t5.end != config.t5.start) tokens[config.t5.end] = next++;
  std::vector<std::pair<std::string, size_t>> codes;  // text, row
  for (int level = 0; level < config.levels(); ++level) {
    for (Code code = 0; code < config.level_sizes[level]; ++code) {
      codes.emplace_back(sid::SidToken(level, code), codes.size());
    }
  }
  for (size_t row = codes.size(); row < tokens.size(); ++row) {
    if (tokens[row] < 0) tokens[row] = next++;
  }
  std::sort(codes.begin(), codes.end());
  for (const auto& [text, row] : codes) {
    if (tokens[row] < 0) tokens[row] = next++;
  }
  return tokens;
}

}  // namespace beamline::runtime
