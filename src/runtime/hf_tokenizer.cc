// SPDX-License-Identifier: Apache-2.0
#include "runtime/hf_tokenizer.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/json.h"
#include "base/problem_list.h"
#include "base/utf8.h"
#include "beamline/status.h"
#include "runtime/hf_text.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr int64_t kMaxTokenId = (int64_t{1} << 24) - 1;
constexpr size_t kMaxTemplateIds = 1024;  // prefix and suffix; a model's config.json takes no more of either

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// tokenizer.json nests normalisers and regular expressions.
constexpr JsonLimits kTokenizerLimits{.max_depth = 24, .max_elements = 64'000'000};

// Reads one file's tokens into the common map.
class Collector {
 public:
  Collector(HfTokenizer& tokenizer, std::string path) : tokenizer_(tokenizer), path_(std::move(path)) {}

  absl::Status Add(const std::string& where, const std::string& token, const json& id) {
    if (!id.is_number_unsigned()) return Error(where, "the id must be a whole number");
    const uint64_t value = id.get<uint64_t>();
    if (value > static_cast<uint64_t>(kMaxTokenId)) return AboveLimit(where, value);
    return Insert(where, token, static_cast<int64_t>(value));
  }

  // REQUIRES: id >= 0.
  absl::Status Insert(const std::string& where, const std::string& token, int64_t id) {
    if (id > kMaxTokenId) return AboveLimit(where, static_cast<uint64_t>(id));
    const auto [found, added] = tokenizer_.ids.emplace(token, id);
    if (!added && found->second != id) {
      return Error(where, absl::StrCat("token '", HfText(token), "' has id ", id, " here and ", found->second,
                                       " elsewhere in the folder; save the tokenizer again"));
    }
    tokenizer_.size = std::max(tokenizer_.size, id + 1);
    return absl::OkStatus();
  }

  // {"token": id, ...}
  absl::Status AddMap(const std::string& where, const json& map) {
    if (!map.is_object()) return Error(where, absl::StrCat("must be an object, is ", map.type_name()));
    for (const auto& [token, id] : map.items()) {
      BEAMLINE_RETURN_IF_ERROR(Add(absl::StrCat(where, ".", HfText(token)), token, id));
    }
    return absl::OkStatus();
  }

  // [["piece", score], ...], whose place is the id
  absl::Status AddPieces(const std::string& where, const json& pieces) {
    for (size_t id = 0; id < pieces.size(); ++id) {
      const json& piece = pieces[id];
      if (!piece.is_array() || piece.empty() || !piece[0].is_string()) {
        return Error(absl::StrCat(where, "[", id, "]"), "must be a piece and its score");
      }
      BEAMLINE_RETURN_IF_ERROR(Insert(where, piece[0].get<std::string>(), static_cast<int64_t>(id)));
    }
    return absl::OkStatus();
  }

  absl::Status Error(const std::string& where, const std::string& what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", PrintableUtf8(absl::StrCat(where, ": ", what), ProblemList::kMaxProblemBytes)));
  }

 private:
  absl::Status AboveLimit(const std::string& where, uint64_t id) const {
    return Error(where, absl::StrCat("id ", id, " is above the limit ", kMaxTokenId));
  }

  HfTokenizer& tokenizer_;
  const std::string path_;
};

// The member of that name, or null. Nothing is copied: a part of a template names what the file wrote once, and a small
// file can have very many parts.
const json& Member(const json& object, absl::string_view key) {
  static const json* const none = new json();
  if (!object.is_object()) return *none;
  const auto found = object.find(std::string(key));
  return found == object.end() ? *none : *found;
}

// What a template's special token stands for: "special_tokens": {"</s>": {"ids": [1], ...}}. `before`: ids of the parts
// before it.
absl::Status CheckTemplateIds(const Collector& collector, const json& ids, const std::string& token, size_t before) {
  if (ids.is_array() && before + ids.size() > kMaxTemplateIds) {
    return collector.Error("post_processor.single",
                           absl::StrCat("puts ", before + ids.size(),
                                        " tokens or more around a sequence, the limit is ", kMaxTemplateIds));
  }
  const bool valid = ids.is_array() && !ids.empty() && std::all_of(ids.begin(), ids.end(), [](const json& id) {
                       return id.is_number_unsigned() && id.get<uint64_t>() <= static_cast<uint64_t>(kMaxTokenId);
                     });
  if (!valid) {
    return collector.Error(absl::StrCat("post_processor.special_tokens.", HfText(token), ".ids"),
                           absl::StrCat("must be token ids up to ", kMaxTokenId, ", is ", HfText(ids.dump())));
  }
  return absl::OkStatus();
}

// The special tokens of a TemplateProcessing's `single`: those before the sequence are the prefix.
absl::Status ReadTemplate(const Collector& collector, const json& processor, HfTokenizer& tokenizer) {
  const std::string where = "post_processor";
  if (!processor.is_object() || processor.value("type", json()) != "TemplateProcessing" ||
      !processor.contains("single") || !processor.at("single").is_array()) {
    const std::string type = processor.is_object() ? processor.value("type", json()).dump() : processor.dump();
    const absl::Status status =
        collector.Error(where, absl::StrCat("of type ", HfText(type), ", where only TemplateProcessing is understood"));
    tokenizer.unknown_template = std::string(status.message());
    return absl::OkStatus();
  }
  bool sequence_seen = false;
  for (const json& part : processor.at("single")) {
    if (part.is_object() && part.contains("Sequence")) {
      sequence_seen = true;
      continue;
    }
    if (!part.is_object() || !part.contains("SpecialToken") || !part.at("SpecialToken").is_object() ||
        !part.at("SpecialToken").value("id", json()).is_string()) {
      return collector.Error(where, "single: every part must be a Sequence or a SpecialToken");
    }
    const std::string token = part.at("SpecialToken").at("id").get<std::string>();
    const json& ids = Member(Member(Member(processor, "special_tokens"), token), "ids");
    BEAMLINE_RETURN_IF_ERROR(
        CheckTemplateIds(collector, ids, token, tokenizer.prefix.size() + tokenizer.suffix.size()));
    std::vector<int64_t>& side = sequence_seen ? tokenizer.suffix : tokenizer.prefix;
    for (const json& id : ids) side.push_back(id.get<int64_t>());
  }
  return absl::OkStatus();
}

absl::Status ReadTokenizerJson(const fs::path& path, HfTokenizer& tokenizer) {
  BEAMLINE_ASSIGN_OR_RETURN(const json document, ReadJsonObject(path.string(), kTokenizerLimits));
  Collector collector(tokenizer, path.string());
  if (document.contains("added_tokens")) {
    const json& added = document.at("added_tokens");
    if (!added.is_array()) return collector.Error("added_tokens", "must be an array");
    for (size_t i = 0; i < added.size(); ++i) {
      const std::string where = absl::StrCat("added_tokens[", i, "]");
      if (!added[i].is_object() || !added[i].contains("id") || !added[i].value("content", json()).is_string()) {
        return collector.Error(where, "must have id and content");
      }
      BEAMLINE_RETURN_IF_ERROR(collector.Add(where, added[i].at("content").get<std::string>(), added[i].at("id")));
    }
  }
  if (!document.contains("model") || !document.at("model").is_object() || !document.at("model").contains("vocab")) {
    return collector.Error("model.vocab", "is missing");
  }
  const json& vocab = document.at("model").at("vocab");
  BEAMLINE_RETURN_IF_ERROR(vocab.is_array() ? collector.AddPieces("model.vocab", vocab)
                                            : collector.AddMap("model.vocab", vocab));
  if (!document.contains("post_processor") || document.at("post_processor").is_null()) return absl::OkStatus();
  return ReadTemplate(collector, document.at("post_processor"), tokenizer);
}

// tokenizer_config.json: "added_tokens_decoder": {"32100": {"content": "<a_0>", ...}}, and for a folder with nothing
// but a sentencepiece model, what kind of tokenizer it is.
absl::Status ReadTokenizerConfig(const fs::path& path, bool has_template, int64_t end_id, HfTokenizer& tokenizer) {
  BEAMLINE_ASSIGN_OR_RETURN(const json document, ReadJsonObject(path.string(), kTokenizerLimits));
  Collector collector(tokenizer, path.string());
  if (document.contains("added_tokens_decoder")) {
    const json& decoder = document.at("added_tokens_decoder");
    if (!decoder.is_object()) return collector.Error("added_tokens_decoder", "must be an object");
    for (const auto& [key, token] : decoder.items()) {
      const std::string where = absl::StrCat("added_tokens_decoder.", HfText(key));
      int64_t id = 0;
      if (!absl::SimpleAtoi(key, &id) || id < 0 || id > kMaxTokenId) {
        return collector.Error(where, absl::StrCat("the key must be an id in [0, ", kMaxTokenId, "]"));
      }
      if (!token.is_object() || !token.value("content", json()).is_string()) {
        return collector.Error(where, "must have content");
      }
      BEAMLINE_RETURN_IF_ERROR(collector.Insert(where, token.at("content").get<std::string>(), id));
    }
  }
  const json kind = document.value("tokenizer_class", json());
  const json end = document.value("eos_token", json());
  if (has_template || !kind.is_string() || !absl::StartsWith(kind.get<std::string>(), "T5Tokenizer")) {
    return absl::OkStatus();
  }
  const std::string text = end.is_string() ? end.get<std::string>() : "</s>";
  if (!tokenizer.ids.contains(text)) {
    for (const auto& [other, id] : tokenizer.ids) {
      if (id == end_id) {
        return collector.Error("eos_token", absl::StrCat("the model's eos_token_id ", end_id, " is '", HfText(other),
                                                         "', not '", HfText(text), "'; save the tokenizer again"));
      }
    }
    BEAMLINE_RETURN_IF_ERROR(collector.Insert("eos_token_id of the model", text, end_id));
  }
  tokenizer.suffix = {tokenizer.ids.at(text)};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<int64_t> HfTokenizer::Id(const std::string& token) const {
  const auto found = ids.find(token);
  if (found != ids.end()) return found->second;
  return absl::NotFoundError(absl::StrCat(source, ": the tokenizer has no token '", token, "'"));
}

absl::StatusOr<HfTokenizer> ReadHfTokenizer(const fs::path& folder, int64_t end_id) {
  HfTokenizer tokenizer;
  tokenizer.source = folder.string();
  const fs::path whole = folder / "tokenizer.json", added = folder / "added_tokens.json",
                 config = folder / "tokenizer_config.json";
  if (!Exists(whole) && !Exists(added) && !Exists(config)) {
    return absl::NotFoundError(absl::StrCat(
        folder.string(),
        ": has none of tokenizer.json, added_tokens.json, tokenizer_config.json; save the tokenizer "
        "with its SID tokens there (tokenizer.save_pretrained), or, where ids were reckoned without one, write "
        "added_tokens.json: {\"</s>\": 1, \"<a_0>\": 7, \"<a_1>\": 8, ...}"));
  }
  if (Exists(whole)) BEAMLINE_RETURN_IF_ERROR(ReadTokenizerJson(whole, tokenizer));
  if (Exists(added)) {
    BEAMLINE_ASSIGN_OR_RETURN(const json document, ReadJsonObject(added.string(), kTokenizerLimits));
    BEAMLINE_RETURN_IF_ERROR(Collector(tokenizer, added.string()).AddMap("$", document));
  }
  if (Exists(config)) BEAMLINE_RETURN_IF_ERROR(ReadTokenizerConfig(config, Exists(whole), end_id, tokenizer));
  return tokenizer;
}

}  // namespace beamline::runtime
