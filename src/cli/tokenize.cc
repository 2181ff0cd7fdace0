// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "beamline/status.h"
#include "cli/verb.h"
#include "sid/codebook.h"
#include "sid/item_vectors.h"
#include "sid/residual_kmeans.h"
#include "sid/semantic_tokenizer.h"
#include "sid/sid_index.h"
#include "sid/tokenizer_report.h"
#include "train/corpus.h"
#include "train/event_vectors.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(An item's semantic ID (SID) is a short tuple of codes; similar items share prefixes. Item vectors are clustered,
then what is left over is clustered again, level by level (residual k-means).

From a behaviour log (events.tsv[.gz], items.tsv[.gz] of `beamline import` or `generate-data`). Vectors come from
which items the same users watched, mixed with authors and tags; nothing from a user's validation event on is looked at
(give --targets, --k-core and --split-at as to `beamline train`, which splits the same way):
  beamline tokenize --events data --levels 256,256,256 --collision-free --out tokenizer

From vectors of your own (row = item id, or ids in a text file or in the safetensors tensor "item_ids"):
  beamline tokenize --vectors items.npy --ids ids.txt --levels 1024,1024,1024 --balanced --out tokenizer

From SIDs that somebody else made (LETTER's Beauty.index.json numbers items from 0, its logs from 1):
  beamline tokenize --from-index Beauty.index.json --dialect letter --id-offset 1 --levels 256,256,256,256 --out tokenizer

New items, with the codebook of an earlier run, whose items keep their SIDs and come first in what is written; with
--collision-free new ones take SIDs that are still free. For `pack --catalogue-only`, and the model stays as it is:
  beamline tokenize --encode tokenizer --vectors new.npy --ids new_ids.txt --collision-free --out tokenizer2

--out holds codebook.safetensors, sids.tsv, report.json and, with --events, vectors.safetensors.)";

struct TokenizeFlags {
  sid::ItemVectorsFile vectors;
  std::string events, from_index, encode, out, levels, write_index;
  std::string default_levels = "256,256,256";
  std::string targets = "long_view", split_at, dialect = "letter";
  int64_t id_offset = 0;
  int64_t max_bad_rows = 0;
  int threads = 0;
  bool sampled_init = false;
  bool overwrite = false;
  train::EventVectorsOptions embedding;
  sid::ResidualKMeansOptions kmeans;
};

struct Tokenization {
  sid::Codebook codebook;
  sid::SidTable table;
};

std::string InFolder(const std::string& folder, const std::string& name) {
  return (std::filesystem::path(folder) / name).string();
}

void PrintBadRows(const sid::BadRows& bad_rows) {
  for (const std::string& message : bad_rows.messages) std::fprintf(stderr, "skipped %s\n", message.c_str());
  if (bad_rows.count > 0) std::fprintf(stderr, "%lld bad rows skipped\n", static_cast<long long>(bad_rows.count));
}

absl::StatusOr<sid::SidTable> ReadIndex(const TokenizeFlags& flags, const sid::SidIndexOptions& options) {
  sid::BadRows bad_rows;
  absl::StatusOr<sid::SidTable> table = sid::ReadSidIndex(flags.dialect, flags.from_index, options, &bad_rows);
  PrintBadRows(bad_rows);
  return table;
}

absl::Status WriteIndex(const TokenizeFlags& flags, const sid::SidTable& table) {
  if (flags.write_index.empty()) return absl::OkStatus();
  if (flags.dialect == "minionerec-info") return sid::WriteInfoText(flags.write_index, table, flags.id_offset);
  if (flags.dialect == "tsv") return sid::WriteSidTsv(flags.write_index, table);
  return sid::WriteIndexJson(flags.write_index, table, flags.id_offset);
}

// Of a promise that is not kept: why, and what would help.
void WarnOfCrowded(const TokenizeFlags& flags, int64_t largest_sid) {
  const bool promised = flags.kmeans.collision_free && flags.from_index.empty();
  if (!promised || largest_sid <= flags.kmeans.max_items_per_sid) return;
  const bool any_move = flags.kmeans.max_move_error >= sid::ResidualKMeansOptions().max_move_error;
  std::string why = "some prefix has more items than its last level has room for", help = "or try --balanced";
  if (!any_move) {
    why = absl::StrCat("moves over --max-move-error were left undone, or ", why);
    help = "try --balanced, or raise --max-move-error";
  }
  help = absl::StrCat("give the last level more codes, ", help);
  if (!flags.encode.empty()) {
    why = "known items keep their SIDs, and new ones share one where their prefix has no free code";
    help = "fewer takes a new tokenizer, and a model trained with it";
  }
  std::fprintf(stderr, "--max-items-per-sid: %d is not kept: %s, and a SID got %lld; %s\n",
               flags.kmeans.max_items_per_sid, why.c_str(), static_cast<long long>(largest_sid), help.c_str());
}

// Codebook before table: whoever finds the table finds the codebook it names.
absl::Status WriteFolder(const TokenizeFlags& flags, const Tokenization& result, const FloatMatrix* vectors) {
  BEAMLINE_ASSIGN_OR_RETURN(const sid::TokenizerReport report,
                            sid::ReportTokenizer(result.codebook, result.table.sids, vectors, flags.kmeans.seed));
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(flags.out));
  BEAMLINE_RETURN_IF_ERROR(result.codebook.Save(InFolder(flags.out, "codebook.safetensors")));
  BEAMLINE_RETURN_IF_ERROR(sid::WriteSidTsv(InFolder(flags.out, "sids.tsv"), result.table));
  BEAMLINE_RETURN_IF_ERROR(WriteFileAtomically(InFolder(flags.out, "report.json"), sid::ReportJson(report)));
  BEAMLINE_RETURN_IF_ERROR(WriteIndex(flags, result.table));
  WarnOfCrowded(flags, report.tokenizer.largest_sid);
  std::printf("%s\ncodebook  %s\nlevels    %s\nwrote     %s\n", sid::ReportText(report).c_str(),
              result.codebook.fingerprint().c_str(), sid::FormatLevelSizes(result.codebook.level_sizes()).c_str(),
              flags.out.c_str());
  return absl::OkStatus();
}

absl::Status ConvertIndex(const TokenizeFlags& flags) {
  sid::SidIndexOptions options;
  options.id_offset = flags.id_offset;
  options.max_bad_rows = flags.max_bad_rows;
  if (!flags.levels.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(options.level_sizes, FromFlag("--levels", sid::ParseLevelSizes(flags.levels)));
  }
  BEAMLINE_ASSIGN_OR_RETURN(sid::SidTable table, ReadIndex(flags, options));
  if (flags.levels.empty()) {
    std::fprintf(stderr, "level sizes %s are those of the codes seen; state them with --levels if there are more\n",
                 sid::FormatLevelSizes(table.level_sizes).c_str());
  }
  BEAMLINE_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(flags.from_index, options.max_file_bytes));
  BEAMLINE_ASSIGN_OR_RETURN(sid::Codebook codebook,
                            sid::Codebook::Foreign(flags.dialect, table.level_sizes, Sha256Hex(bytes)));
  table.codebook_fingerprint = codebook.fingerprint();
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  return WriteFolder(flags, {std::move(codebook), std::move(table)}, nullptr);
}

void PrintEmbedding(const train::EventVectors& found) {
  const auto number = [](int64_t value) { return static_cast<long long>(value); };
  const sid::CollaborativeEmbedding& embedding = found.embedding;
  std::fprintf(stderr,
               "%zu items, %lld training events of %lld users, %lld co-occurrences, %lld shared attributes; %lld items "
               "by attributes alone, %lld by the mean\n",
               found.items.items.size(), number(found.training_events), number(found.users),
               number(embedding.cooccurrences), number(embedding.attribute_columns),
               number(embedding.items_without_events - embedding.items_without_anything),
               number(embedding.items_without_anything));
}

// What is wrong with the vectors names the file or folder that they come from.
template <typename T>
absl::StatusOr<T> OfInput(const TokenizeFlags& flags, absl::StatusOr<T> value) {
  const std::string& input = flags.vectors.path.empty() ? flags.events : flags.vectors.path;
  return absl::IsInvalidArgument(value.status()) ? FromFlag(input, std::move(value)) : std::move(value);
}

absl::Status Fit(TokenizeFlags flags) {
  Progress progress;
  ThreadPool pool(ThreadsOrCores(flags.threads) - 1);  // this thread works too
  BEAMLINE_ASSIGN_OR_RETURN(flags.kmeans.level_sizes, FromFlag("--levels", sid::ParseLevelSizes(flags.levels)));
  sid::ItemVectors items;
  std::string log;
  if (!flags.events.empty()) {
    flags.embedding.embedding.seed = flags.kmeans.seed;
    BEAMLINE_ASSIGN_OR_RETURN(flags.embedding.corpus.target_labels,
                              FromFlag("--targets", train::ParseTargets(flags.targets)));
    if (!flags.split_at.empty()) {
      BEAMLINE_ASSIGN_OR_RETURN(flags.embedding.corpus.time_split,
                                FromFlag("--split-at", train::ParseTimeSplit(flags.split_at)));
    }
    BEAMLINE_ASSIGN_OR_RETURN(train::EventVectors found,
                              train::EmbedEvents(flags.events, flags.embedding, &pool, &progress));
    PrintEmbedding(found);
    items = std::move(found.items);
    log = std::move(found.log);
  } else {
    BEAMLINE_ASSIGN_OR_RETURN(items, sid::ReadItemVectors(flags.vectors));
  }
  if (flags.sampled_init) flags.kmeans.init = sid::KMeansInit::kSampled;
  BEAMLINE_ASSIGN_OR_RETURN(sid::ResidualKMeansResult fit,
                            OfInput(flags, sid::FitResidualKMeans(items.vectors, flags.kmeans, &pool, &progress)));
  BEAMLINE_RETURN_IF_ERROR(MakeFolder(flags.out));
  if (!flags.events.empty()) {
    BEAMLINE_RETURN_IF_ERROR(sid::WriteItemVectors(InFolder(flags.out, "vectors.safetensors"), items));
  }
  sid::SidTable table{.level_sizes = fit.codebook.level_sizes(),
                      .codebook_fingerprint = fit.codebook.fingerprint(),
                      .targets = flags.events.empty() ? "" : train::DescribeTargets(flags.embedding.corpus),
                      .log = std::move(log),
                      .items = std::move(items.items),
                      .sids = std::move(fit.sids),
                      .titles = {}};
  return WriteFolder(flags, {std::move(fit.codebook), std::move(table)}, &items.vectors);
}

// A tokenizer that is there may be that of a model, which can be used with no other.
absl::Status CheckOutFolder(const TokenizeFlags& flags) {
  for (const char* name : {"codebook.safetensors", "sids.tsv", "report.json", "vectors.safetensors"}) {
    std::error_code ignored;
    if (!flags.write_index.empty() && std::filesystem::weakly_canonical(flags.write_index, ignored) ==
                                          std::filesystem::weakly_canonical(InFolder(flags.out, name), ignored)) {
      return absl::InvalidArgumentError(
          absl::StrCat("--write-index: ", flags.write_index, " is a file of --out itself"));
    }
    if (flags.events.empty() && name == std::string("vectors.safetensors")) continue;  // not written then
    BEAMLINE_RETURN_IF_ERROR(CheckNotThere(InFolder(flags.out, name), flags.overwrite));
  }
  return CheckCanMakeFolder(flags.out, "--out");
}

absl::StatusOr<sid::SidTable> ReadKnown(const TokenizeFlags& flags, const sid::Codebook& codebook) {
  const std::string path = InFolder(flags.encode, "sids.tsv");
  sid::SidTable none{.level_sizes = codebook.level_sizes(), .codebook_fingerprint = codebook.fingerprint()};
  if (!flags.kmeans.collision_free && !std::filesystem::exists(path)) return none;
  BEAMLINE_ASSIGN_OR_RETURN(sid::SidTable known, sid::ReadSidTsv(path));
  if (known.codebook_fingerprint == codebook.fingerprint()) return known;
  return absl::FailedPreconditionError(absl::StrCat(path, ": belongs to codebook ", known.codebook_fingerprint,
                                                    ", codebook.safetensors is ", codebook.fingerprint(),
                                                    "; take both from one run"));
}

// A tokenizer again: the known items and, behind them, the new ones.
absl::Status Encode(const TokenizeFlags& flags) {
  Progress progress;
  ThreadPool pool(ThreadsOrCores(flags.threads) - 1);
  BEAMLINE_ASSIGN_OR_RETURN(sid::Codebook codebook,
                            sid::Codebook::Load(InFolder(flags.encode, "codebook.safetensors")));
  BEAMLINE_ASSIGN_OR_RETURN(sid::SemanticTokenizer tokenizer, sid::SemanticTokenizer::Create(codebook));
  BEAMLINE_ASSIGN_OR_RETURN(const sid::ItemVectors items, sid::ReadItemVectors(flags.vectors));
  BEAMLINE_ASSIGN_OR_RETURN(sid::SidTable table, ReadKnown(flags, codebook));
  const int most = flags.kmeans.collision_free ? flags.kmeans.max_items_per_sid : std::numeric_limits<int>::max();
  BEAMLINE_ASSIGN_OR_RETURN(const std::vector<Sid> sids,
                            OfInput(flags, tokenizer.EncodeBeside(table, items, most, {&pool, &progress})));
  const size_t known = table.items.size();
  absl::flat_hash_set<ItemId> present(table.items.begin(), table.items.end());
  for (size_t i = 0; i < sids.size(); ++i) {
    if (!present.insert(items.items[i]).second) continue;
    table.items.push_back(items.items[i]);
    table.sids.push_back(sids[i]);
  }
  BEAMLINE_RETURN_IF_ERROR(CheckInterrupted());
  std::printf("encoded   %zu new items, %zu have kept their SIDs\n", table.items.size() - known, known);
  return WriteFolder(flags, {std::move(codebook), std::move(table)}, nullptr);
}

absl::Status CheckDialect(const TokenizeFlags& flags) {
  for (absl::string_view known : {"letter", "minionerec", "minionerec-info", "openonerec", "tsv"}) {
    if (flags.dialect == known) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--dialect: '", flags.dialect, "' must be letter, minionerec, minionerec-info, openonerec or tsv"));
}

absl::Status RunTokenize(TokenizeFlags flags) {
  BEAMLINE_RETURN_IF_ERROR(CheckDialect(flags));
  if (!flags.write_index.empty() && flags.dialect == "openonerec") {
    return absl::InvalidArgumentError(
        "--write-index: openonerec is only read, its file counts views; write letter, minionerec or tsv");
  }
  if (!flags.write_index.empty() && flags.dialect == "tsv" && flags.id_offset != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--id-offset: ", flags.id_offset, " cannot be written to --dialect tsv, which has the item ids themselves"));
  }
  if (!flags.write_index.empty()) {
    BEAMLINE_RETURN_IF_ERROR(CheckNotThere(flags.write_index, flags.overwrite));
    BEAMLINE_RETURN_IF_ERROR(CheckCanWrite(flags.write_index, "--write-index"));
  }
  const bool has_vectors = !flags.vectors.path.empty();
  const int sources = (has_vectors ? 1 : 0) + (flags.events.empty() ? 0 : 1) + (flags.from_index.empty() ? 0 : 1);
  if (sources != 1 || (!flags.encode.empty() && !has_vectors)) {
    return absl::InvalidArgumentError(
        "give one of --events, --vectors and --from-index, or --encode together with --vectors; see `beamline tokenize "
        "--help`");
  }
  BEAMLINE_RETURN_IF_ERROR(CheckOutFolder(flags));
  if (!flags.encode.empty()) return Encode(flags);
  if (!flags.from_index.empty()) return ConvertIndex(flags);
  if (flags.levels.empty()) flags.levels = flags.default_levels;
  return Fit(std::move(flags));
}

constexpr Limits kAnyOffset = {-std::numeric_limits<double>::infinity()};

void AddInputFlags(Command* command, TokenizeFlags* flags) {
  command->AddText("--events", flags->events, "Folder with events.tsv and items.tsv (plain or gzip)");
  command->AddText("--vectors", flags->vectors.path, "Item vectors: .npy or .safetensors, one row per item");
  command->AddText("--ids", flags->vectors.ids_path, "Item ids of the rows, one per line");
  command->AddText("--tensor", flags->vectors.tensor, "Tensor of the safetensors file; default: vectors");
  command->AddText("--from-index", flags->from_index, "SID index of another tokenizer");
  command->AddText("--encode", flags->encode,
                   "Folder of an earlier run: its codebook encodes what is new among --vectors");
  command
      ->AddText("--dialect", flags->dialect,
                "letter, minionerec (JSON), minionerec-info (text), openonerec (sid2pid.json) or tsv")
      ->ShowDefault();
  command->AddNumber("--id-offset", flags->id_offset, kAnyOffset, "Item id = key of the index + this")->ShowDefault();
  command->AddNumber("--max-bad-rows", flags->max_bad_rows, {0}, "More bad rows refuse the index")->ShowDefault();
}

void AddEmbeddingFlags(Command* command, TokenizeFlags* flags) {
  train::EventVectorsOptions& events = flags->embedding;
  command->AddNumber("--dim", events.embedding.dim, {1, 512}, "Dimension of the vectors from --events")->ShowDefault();
  command
      ->AddNumber("--attributes-weight", events.embedding.attributes_weight, {0, 1e6},
                  "Energy of authors and tags over that of behaviour; 0: behaviour alone")
      ->ShowDefault();
  command->AddNumber("--window", events.embedding.window, {0}, "Items of a user co-occur this far apart; 0: anywhere")
      ->ShowDefault();
  command
      ->AddNumber("--context-smoothing", events.embedding.context_smoothing, {0, 1},
                  "Exponent on the counts of co-occurring items; below 1 takes weight from rare ones")
      ->ShowDefault();
  command->AddFlag("--normalize,!--no-normalize", events.embedding.normalize, "Vectors of unit length (the default)");
  command
      ->AddText("--targets", flags->targets,
                "As for train: labels of events to predict, joined by |; 'any': every event")
      ->ShowDefault();
  command->AddNumber("--k-core", events.corpus.k_core, {0},
                     "As for train: targets' users and items with at least this many; 0: all");
  command->AddText("--split-at", flags->split_at,
                   "As for train: two moments; nothing from the first on is looked at, but that there are items");
  command->AddFlag("--target-items-only", events.target_items_only, "SIDs for the items of targets alone");
  command->AddFlag("--all-events", events.all_events, "Co-occurrence of all events, not of targets alone");
  command->AddFlag("--unused-items", events.unused_items, "SIDs also for items of items.tsv without events");
}

void AddClusteringFlags(Command* command, TokenizeFlags* flags) {
  sid::ResidualKMeansOptions& kmeans = flags->kmeans;
  command->AddText("--levels", flags->levels, "Codes per level, 1 to 8 levels; default 256,256,256");
  command->AddFlag("--balanced", kmeans.balanced, "Every code gets about the same number of items");
  command->AddNumber("--balance-slack", kmeans.balance_slack, {1, 1e6}, "Most items of a code over the equal share")
      ->ShowDefault();
  command->AddFlag("--collision-free", kmeans.collision_free,
                   "Items with one prefix are dealt last codes anew, so that few share a SID");
  command->AddNumber("--max-items-per-sid", kmeans.max_items_per_sid, {1}, "With --collision-free")->ShowDefault();
  command->AddNumber("--max-move-error", kmeans.max_move_error, {0},
                     "With --collision-free: moves that cost more than this many mean squared errors are left undone");
  command->AddNumber("--iterations", kmeans.iterations, {1, 10'000}, "Of Lloyd's algorithm per level, at most")
      ->ShowDefault();
  command
      ->AddNumber("--max-points-per-centroid", kmeans.max_points_per_centroid, {0},
                  "Training sample; 0: all. Every item is assigned either way")
      ->ShowDefault();
  command->AddFlag("--sampled-init", flags->sampled_init, "Start from random items, not k-means++: faster");
  command->AddNumber("--seed", kmeans.seed, {}, "The same seed gives the same SIDs, with any number of threads")
      ->ShowDefault();
  command->AddNumber("--threads", flags->threads, {0, kMaxThreads}, "0: one per core")->ShowDefault();
}

}  // namespace

Verb AddTokenize(Command& root) {
  auto flags = std::make_shared<TokenizeFlags>();
  Command* command = root.AddCommand("tokenize", "Give every item a semantic ID");
  command->Footer(kExamples);
  AddInputFlags(command, flags.get());
  // Before the options that it presets, so that its callback runs before theirs.
  command
      ->AddCallback(
          "--preset",
          [flags](const std::string&) {
            flags->default_levels = "64,64,64";
            flags->embedding.embedding.dim = 32;
            flags->kmeans.collision_free = true;
          },
          "demo: 64,64,64 codes, 32 dimensions, collision-free")
      ->OneOf({"demo"});
  AddEmbeddingFlags(command, flags.get());
  AddClusteringFlags(command, flags.get());
  command->AddText("--out", flags->out, "Folder to write")->Required();
  command->AddFlag("--overwrite", flags->overwrite,
                   "Replace a tokenizer that is there; a model that was trained with it can be used no more");
  command->AddText("--write-index", flags->write_index, "Also write the SIDs as an index in --dialect");
  return {command, [flags] { return RunTokenize(*flags); }};
}

}  // namespace beamline::cli
