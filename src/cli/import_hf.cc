// SPDX-License-Identifier: Apache-2.0
#include "cli/import_hf.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "absl/strings/str_split.h"
#include "base/progress.h"
#include "beamline/status.h"
#include "cli/verb.h"
#include "sid/codebook.h"

namespace beamline::cli {
namespace {

std::vector<std::string> Tokens(const std::string& text) { return absl::StrSplit(text, ' ', absl::SkipEmpty()); }

void Print(const runtime::ImportHfResult& result, const std::string& out) {
  const model::ModelConfig& config = result.config;
  for (const std::string& message : result.bad_rows.messages) std::fprintf(stderr, "skipped %s\n", message.c_str());
  for (const std::string& note : result.notes) std::fprintf(stderr, "note: %s\n", note.c_str());
  std::printf("model       %s (%s), d %d, %d x %d heads, %d + %d layers, %s%s\n",
              result.pack.manifest.model_version.c_str(), config.family.c_str(), config.d_model, config.heads,
              config.head_dim, config.encoder.layers, config.decoder.layers, config.encoder.ffn.gated ? "gated " : "",
              std::string(model::T5ActivationName(config.t5.activation)).c_str());
  std::printf("vocabulary  %lld tokens, head %s%s; levels %s, %lld codes without a token\n",
              static_cast<long long>(config.t5.vocabulary), config.decoder.tied_heads ? "tied" : "of its own",
              config.t5.scale_head ? ", scaled" : "", sid::FormatLevelSizes(config.level_sizes).c_str(),
              static_cast<long long>(result.codes_without_token));
  std::printf("input       %zu tokens, at most %d items, %zu tokens; the end token is %sscored\n",
              config.t5.input.prefix.size(), config.t5.input.max_items, config.t5.input.suffix.size(),
              config.t5.score_end ? "" : "not ");
  const catalogue::CatalogueSnapshot& catalogue = *result.pack.catalogue.snapshot;
  ItemId first = catalogue.item_id(0), last = first;  // shows whether --id-offset is the right one
  for (uint32_t item = 1; item < catalogue.num_items(); ++item) {
    first = std::min(first, catalogue.item_id(item));
    last = std::max(last, catalogue.item_id(item));
  }
  std::printf("items       %llu in %llu SIDs, ids %llu to %llu\nwrote       %s\n",
              static_cast<unsigned long long>(catalogue.num_items()),
              static_cast<unsigned long long>(catalogue.num_sids()), static_cast<unsigned long long>(first),
              static_cast<unsigned long long>(last), out.c_str());
}

}  // namespace

void AddImportHf(Command& import, ImportHfFlags& flags) {
  Command* hf = import.AddCommand("hf", "A Hugging Face T5ForConditionalGeneration with SID tokens, to a bundle");
  runtime::ImportHfOptions& options = flags.options;
  hf->AddText("DIR", flags.folder, "config.json, model.safetensors or its shards, tokenizer files")->Required();
  hf->AddText("--sid-index", options.sid_index, "The items' SIDs")->Required();
  hf->AddText("--dialect", options.dialect, "Of the index: letter, minionerec, minionerec-info, openonerec or tsv")
      ->ShowDefault();
  hf->AddNumber("--id-offset", options.index.id_offset, {-std::numeric_limits<double>::infinity()},
                "Item id = key of the index + this")
      ->ShowDefault();
  hf->AddText("--levels", flags.levels, "Codes per level, e.g. 256,256,256,256; default: those the index uses");
  hf->AddNumber("--max-bad-rows", options.index.max_bad_rows, {0}, "Bad rows of the index that may be skipped");
  hf->AddNumber("--max-items", options.max_items, {1, 4096}, "Newest items of a history that the encoder reads")
      ->ShowDefault();
  flags.prefix_option =
      hf->AddText("--prefix", flags.prefix, "Tokens before a history, by their text, separated by spaces");
  flags.suffix_option =
      hf->AddText("--suffix", flags.suffix, "Tokens after it; default for both: what the tokenizer adds");
  hf->AddFlag(
      "--score-end", options.score_end,
      "Scores contain the end token: transformers' max_new_tokens above the levels, which its default is, too; "
      "without this the length in generation_config.json decides, and where it says none the codes alone count");
  hf->AddText("--items", flags.items, "Item table (TSV, plain or gzip) for the catalogue's attributes");
  hf->AddText("--out", flags.out, "Bundle folder to make")->Required();
  hf->AddText(
      "--model-out", flags.model_out,
      "Keep model, codebook and sids.tsv in this folder too: --model and --tokenizer of the other verbs (evaluate "
      "takes --targets then)");
  hf->AddText("--model-version", options.model_version, "Name of the model; default: from the parts' digests");
  hf->AddFlag("--overwrite", options.overwrite, "Replace an existing bundle, and the parts in --model-out");
  hf->Footer(
      R"(A history becomes --prefix, the items' SID tokens, and --suffix: a model whose input has more (a token per user, as in
TIGER's paper, separators between items) can be imported and does not get the input that it was trained with.

Scores are sums of log-probabilities, as transformers' generate has them with length_penalty 0.

The index: {"0": ["<a_12>", "<b_7>", "<c_255>"], "1": ...}, an item's key and its tokens (LETTER, MiniOneRec), or what
--dialect names. The tokens' ids come from the tokenizer's files. Ids that were reckoned without a tokenizer go into an
added_tokens.json beside the weights: {"</s>": 1, "<a_0>": 7, "<a_1>": 8, ...}; then say the --suffix, e.g. '</s>'.

Examples:
  beamline import hf checkpoint --sid-index Beauty.index.json --id-offset 1 --out bundle
  beamline import hf tiger --sid-index sids.json --suffix '</s>' --items items.tsv.gz --out bundle --model-out parts)");
}

absl::Status RunImportHf(const ImportHfFlags& flags) {
  Progress progress;
  runtime::ImportHfOptions options = flags.options;
  options.folder = flags.folder;
  options.items = flags.items;
  options.out = flags.out;
  options.model_out = flags.model_out;
  if (!flags.levels.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(options.index.level_sizes, FromFlag("--levels", sid::ParseLevelSizes(flags.levels)));
  }
  if (flags.prefix_option->given()) options.prefix = Tokens(flags.prefix);
  if (flags.suffix_option->given()) options.suffix = Tokens(flags.suffix);
  BEAMLINE_ASSIGN_OR_RETURN(const runtime::ImportHfResult result, runtime::ImportHf(options, &progress));
  Print(result, flags.out);
  return absl::OkStatus();
}

}  // namespace beamline::cli
