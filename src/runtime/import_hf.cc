// SPDX-License-Identifier: Apache-2.0
#include "runtime/import_hf.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "beamline/status.h"
#include "runtime/bundle_manifest.h"
#include "runtime/bundle_writer.h"
#include "runtime/hf_t5_config.h"
#include "runtime/hf_t5_weights.h"
#include "runtime/hf_tokenizer.h"
#include "runtime/t5_vocabulary.h"
#include "runtime/training_record.h"
#include "runtime/vocabulary.h"
#include "sid/codebook.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;

// A folder for the parts; removed at the end unless the caller asked for it.
class PartsFolder {
 public:
  static absl::StatusOr<PartsFolder> Make(const ImportHfOptions& options) {
    const bool keep = !options.model_out.empty();
    fs::path path = keep ? options.model_out : fs::path(WithoutSlash(options.out).string() + ".parts");
    std::error_code error;
    if (!keep && fs::exists(path, error)) {
      return absl::AlreadyExistsError(absl::StrCat(path.string(), ": exists; an import needs the name, remove it"));
    }
    BEAMLINE_RETURN_IF_ERROR(MakeFolder(path));
    return PartsFolder(std::move(path), keep);
  }
  PartsFolder(PartsFolder&& other) noexcept : path_(std::exchange(other.path_, fs::path())), keep_(other.keep_) {}
  PartsFolder& operator=(PartsFolder&&) = delete;
  ~PartsFolder() {
    std::error_code ignored;
    if (!keep_ && !path_.empty()) fs::remove_all(path_, ignored);
  }
  const fs::path& path() const { return path_; }
  std::string operator/(const char* name) const { return (path_ / name).string(); }

 private:
  PartsFolder(fs::path path, bool keep) : path_(std::move(path)), keep_(keep) {}
  fs::path path_;
  bool keep_;
};

// A folder or below it.
bool IsIn(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

// Asked before the long work: what stands where the results go.
absl::Status CheckTargets(const ImportHfOptions& options) {
  BEAMLINE_RETURN_IF_ERROR(CheckBundleTarget(options.out, options.overwrite));
  if (options.model_out.empty()) return absl::OkStatus();
  std::error_code error;
  // The parts have the names of the checkpoint's own config.json and model.safetensors.
  if (fs::equivalent(options.model_out, options.folder, error)) {
    return absl::InvalidArgumentError(
        absl::StrCat(options.model_out.string(),
                     ": is the checkpoint's folder, whose files would be lost; name another --model-out"));
  }
  const fs::path parts = fs::weakly_canonical(WithoutSlash(options.model_out), error),
                 out = fs::weakly_canonical(WithoutSlash(options.out), error);
  if (!error && (IsIn(parts, out) || IsIn(out, parts))) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.model_out.string(),
        ": is --out, or one is in the other, and a bundle holds other files than the parts; name another"));
  }
  // What --overwrite does not mean: these are more than the parts that would be replaced, and useless without them.
  BEAMLINE_RETURN_IF_ERROR(CheckHoldsNo(options.model_out, {kManifestFile, kTrainingFile, kCheckpointFile},
                                        "a bundle or a trained model, which would be lost; name another --model-out"));
  for (const char* name : {kConfigFile, kWeightsFile, kCodebookFile, kVocabularyFile, kSidsFile}) {
    BEAMLINE_RETURN_IF_ERROR(CheckNotThere(options.model_out / name, options.overwrite));
  }
  return absl::OkStatus();
}

struct TemplateTokens {
  std::vector<int64_t> prefix, suffix;
};

absl::StatusOr<std::vector<int64_t>> Ids(const HfTokenizer& tokenizer, const std::vector<std::string>& tokens) {
  std::vector<int64_t> ids;
  for (const std::string& token : tokens) {
    BEAMLINE_ASSIGN_OR_RETURN(ids.emplace_back(), tokenizer.Id(token));
  }
  return ids;
}

absl::StatusOr<TemplateTokens> ChooseTemplate(const ImportHfOptions& options, const HfTokenizer& tokenizer) {
  if (!tokenizer.unknown_template.empty() && (!options.prefix || !options.suffix)) {
    return absl::InvalidArgumentError(
        absl::StrCat(tokenizer.unknown_template, "; say with --prefix and --suffix what surrounds a history"));
  }
  TemplateTokens tokens{tokenizer.prefix, tokenizer.suffix};
  if (options.prefix) {
    BEAMLINE_ASSIGN_OR_RETURN(tokens.prefix, Ids(tokenizer, *options.prefix));
  }
  if (options.suffix) {
    BEAMLINE_ASSIGN_OR_RETURN(tokens.suffix, Ids(tokenizer, *options.suffix));
  }
  return tokens;
}

absl::StatusOr<std::vector<int32_t>> Rows(const T5Vocabulary& vocabulary, const std::vector<int64_t>& tokens,
                                          absl::string_view what) {
  std::vector<int32_t> rows;
  for (const int64_t token : tokens) {
    BEAMLINE_ASSIGN_OR_RETURN(rows.emplace_back(), vocabulary.Row(token, what));
  }
  return rows;
}

// What was read of the folder, and how its tokens become rows.
struct Checkpoint {
  const HfT5Config& hf;
  const HfT5Weights& weights;
  const TemplateTokens& tokens;
  const T5Vocabulary& vocabulary;
};

absl::StatusOr<model::ModelConfig> MakeConfig(const Checkpoint& checkpoint, const ImportHfOptions& options) {
  const auto& [hf, weights, tokens, vocabulary] = checkpoint;
  model::ModelConfig config;
  config.family = model::kT5;
  config.level_sizes = options.index.level_sizes;
  config.d_model = hf.d_model;
  config.heads = hf.heads;
  config.head_dim = hf.d_kv;
  config.norm_epsilon = hf.norm_epsilon;
  config.encoder.layers = hf.encoder_layers;
  config.decoder.layers = hf.decoder_layers;
  config.decoder.tied_heads = weights.tied_head();
  config.encoder.ffn = config.decoder.ffn = {.width = hf.d_ff, .gated = hf.gated};
  model::T5Config& t5 = config.t5;
  t5.vocabulary = static_cast<int64_t>(vocabulary.tokens.size());
  t5.encoder_embedding = weights.encoder_embedding();
  t5.padded = vocabulary.padded;
  t5.activation = hf.activation;
  t5.scale_head = hf.scale_head;
  t5.relative_buckets = hf.relative_buckets;
  t5.relative_max_distance = hf.relative_max_distance;
  BEAMLINE_ASSIGN_OR_RETURN(t5.start, vocabulary.Row(hf.start_token, "decoder_start_token_id"));
  BEAMLINE_ASSIGN_OR_RETURN(t5.end, vocabulary.Row(hf.end_token, "eos_token_id"));
  t5.score_end = options.score_end || hf.max_new_tokens.value_or(0) > config.levels();
  BEAMLINE_ASSIGN_OR_RETURN(t5.input.prefix, Rows(vocabulary, tokens.prefix, "prefix"));
  BEAMLINE_ASSIGN_OR_RETURN(t5.input.suffix, Rows(vocabulary, tokens.suffix, "suffix"));
  t5.input.max_items = options.max_items;
  model::SetT5Pathway(config);
  if (absl::Status status = model::ValidateConfig(config); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(options.folder.string(), ":\n", status.message()));
  }
  return config;
}

// Codebook and SIDs, which learn each other's fingerprint.
absl::Status WriteSids(const PartsFolder& parts, sid::SidTable& sids, const ImportHfOptions& options) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::string index, ReadFile(options.sid_index, options.index.max_file_bytes));
  BEAMLINE_ASSIGN_OR_RETURN(const sid::Codebook codebook,
                            sid::Codebook::Foreign(options.dialect, sids.level_sizes, Sha256Hex(index)));
  sids.codebook_fingerprint = codebook.fingerprint();
  BEAMLINE_RETURN_IF_ERROR(codebook.Save(parts / kCodebookFile));
  return sid::WriteSidTsv(parts / kSidsFile, sids);
}

absl::Status WriteModel(const PartsFolder& parts, const Checkpoint& checkpoint, const model::ModelConfig& config) {
  const std::vector<int64_t>& tokens = checkpoint.vocabulary.tokens;
  BEAMLINE_RETURN_IF_ERROR(model::SaveConfig(config, parts / kConfigFile));
  BEAMLINE_RETURN_IF_ERROR(Vocabulary::OfTokens(tokens).Save(parts / kVocabularyFile));
  return checkpoint.weights.WriteAs(config, tokens, parts / kWeightsFile);
}

// How many tokens generate would make: Beamline's are always an item's codes, and the end token is scored or not.
std::string NoteLength(const HfT5Config& hf, const model::ModelConfig& config) {
  if (!hf.max_new_tokens.has_value()) return "";
  const std::string is = absl::StrCat("generate's max_new_tokens (or max_length - 1) is ", *hf.max_new_tokens, ", ");
  if (config.t5.score_end) return absl::StrCat(is, "more than the levels: scores contain the end token");
  if (*hf.max_new_tokens == config.levels()) return "";
  return absl::StrCat(is, "which ends before the ", config.levels(), " codes of an item; Beamline makes all of them");
}

}  // namespace

absl::StatusOr<ImportHfResult> ImportHf(const ImportHfOptions& given, Progress* progress) {
  ImportHfOptions options = given;
  ImportHfResult result;
  BEAMLINE_RETURN_IF_ERROR(CheckTargets(options));
  BEAMLINE_ASSIGN_OR_RETURN(const HfT5Config hf, ReadHfT5Config(options.folder));
  result.notes = hf.notes;
  BEAMLINE_ASSIGN_OR_RETURN(const HfTokenizer tokenizer, ReadHfTokenizer(options.folder, hf.end_token));
  BEAMLINE_ASSIGN_OR_RETURN(const TemplateTokens tokens, ChooseTemplate(options, tokenizer));
  BEAMLINE_ASSIGN_OR_RETURN(sid::SidTable sids,
                            sid::ReadSidIndex(options.dialect, options.sid_index, options.index, &result.bad_rows));
  options.index.level_sizes = sids.level_sizes;

  BEAMLINE_ASSIGN_OR_RETURN(const HfT5Weights weights, HfT5Weights::Read(options.folder, hf));
  std::vector<int64_t> named = {hf.start_token, hf.end_token};
  named.insert(named.end(), tokens.prefix.begin(), tokens.prefix.end());
  named.insert(named.end(), tokens.suffix.begin(), tokens.suffix.end());
  BEAMLINE_ASSIGN_OR_RETURN(const T5Vocabulary vocabulary,
                            ArrangeVocabulary(tokenizer, sids, weights.vocabulary(), named));
  result.codes_without_token = vocabulary.codes_without_token;
  const Checkpoint checkpoint{hf, weights, tokens, vocabulary};
  BEAMLINE_ASSIGN_OR_RETURN(result.config, MakeConfig(checkpoint, options));
  if (std::string note = NoteLength(hf, result.config); !note.empty() && !options.score_end) {
    result.notes.push_back(std::move(note));
  }

  BEAMLINE_ASSIGN_OR_RETURN(const PartsFolder parts, PartsFolder::Make(options));
  BEAMLINE_RETURN_IF_ERROR(WriteSids(parts, sids, options));
  BEAMLINE_RETURN_IF_ERROR(WriteModel(parts, checkpoint, result.config));
  PackOptions pack;
  pack.model = parts.path();
  pack.catalogue = {parts.path(), options.items, ""};
  pack.out = options.out;
  pack.model_version = options.model_version;
  pack.overwrite = options.overwrite;
  BEAMLINE_ASSIGN_OR_RETURN(result.pack, Pack(pack, progress));
  return result;
}

}  // namespace beamline::runtime
