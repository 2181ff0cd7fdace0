// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/progress.h"
#include "beamline/status.h"
#include "catalogue/generate.h"
#include "catalogue/item_columns.h"
#include "catalogue/snapshot_file.h"
#include "cli/verb.h"
#include "data/generator.h"
#include "sid/generate_vectors.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(A short-video log with KuaiRand-Pure's shape (events per user, label rates, durations, authors, popularity) and
behaviour that can be learnt; the same seed gives the same log on every machine:
  beamline generate-data log --users 3000 --seed 1 --out data

A catalogue of made-up items with uniform SIDs, for measuring the search at any size:
  beamline generate-data catalogue --items 10000000 --levels 3 --codes 8192 --out catalogue.bin

Item vectors with topics and styles, for measuring the tokenizer at any size:
  beamline generate-data vectors --items 1000000 --dim 64 --out vectors.safetensors
  beamline tokenize --vectors vectors.safetensors --levels 1024,1024,1024 --out tokenizer)";

struct GenerateFlags {
  data::LogGeneratorOptions log;
  data::ImportOptions tables;
  bool plain = false, overwrite = false;
  catalogue::GenerateOptions catalogue;
  std::string catalogue_out;
  sid::VectorOptions vectors;
  std::string vectors_out;
};

absl::Status GenerateLog(GenerateFlags& flags, Progress* progress) {
  flags.tables.gzip = !flags.plain;
  flags.tables.overwrite = flags.overwrite;
  flags.tables.progress = progress;
  BEAMLINE_ASSIGN_OR_RETURN(const data::ImportReport report, data::GenerateLog(flags.log, flags.tables));
  for (const std::string& note : report.notes) std::printf("%s", note.c_str());
  std::printf("written to %s\n", flags.tables.out.c_str());
  return absl::OkStatus();
}

absl::Status GenerateCatalogue(const GenerateFlags& flags, Progress* progress) {
  BEAMLINE_RETURN_IF_ERROR(CheckNotThere(flags.catalogue_out, flags.overwrite));
  BEAMLINE_RETURN_IF_ERROR(CheckCanWrite(flags.catalogue_out, "--out"));
  BEAMLINE_ASSIGN_OR_RETURN(const auto snapshot, catalogue::GenerateCatalogue(flags.catalogue, progress));
  BEAMLINE_RETURN_IF_ERROR(catalogue::WriteSnapshot(*snapshot, flags.catalogue_out, progress));
  std::printf("%llu items, %llu SIDs, version %s -> %s\n", static_cast<unsigned long long>(snapshot->num_items()),
              static_cast<unsigned long long>(snapshot->num_sids()), snapshot->version().c_str(),
              flags.catalogue_out.c_str());
  return absl::OkStatus();
}

absl::Status GenerateVectors(const GenerateFlags& flags, Progress* progress) {
  if (!absl::EndsWith(flags.vectors_out, ".safetensors")) {
    return absl::InvalidArgumentError(
        absl::StrCat("--out: ", flags.vectors_out, " must end in .safetensors, which is what is written"));
  }
  BEAMLINE_RETURN_IF_ERROR(CheckNotThere(flags.vectors_out, flags.overwrite));
  BEAMLINE_RETURN_IF_ERROR(CheckCanWrite(flags.vectors_out, "--out"));
  BEAMLINE_ASSIGN_OR_RETURN(const sid::ItemVectors vectors, sid::GenerateVectors(flags.vectors, progress));
  BEAMLINE_RETURN_IF_ERROR(sid::WriteItemVectors(flags.vectors_out, vectors));
  std::printf("%lld vectors of %d dimensions -> %s\n", static_cast<long long>(flags.vectors.items), flags.vectors.dim,
              flags.vectors_out.c_str());
  return absl::OkStatus();
}

void AddLog(Command* command, GenerateFlags& flags) {
  Command* log = command->AddCommand("log", "A short-video log: events, items and users tables");
  log->AddNumber("--users", flags.log.users, {1, 1e8}, "Users of the log")->ShowDefault();
  log->AddNumber("--items", flags.log.items, {0, 1e7}, "Videos, 50 or more; 0: in KuaiRand's proportion to the users")
      ->ShowDefault();
  log->AddNumber("--seed", flags.log.seed, {}, "Another seed, another world")->ShowDefault();
  log->AddPath("--out", flags.tables.out, "Folder for the tables; made if it does not exist")->Required();
  log->AddFlag("--plain", flags.plain, "Write .tsv instead of .tsv.gz");
  log->AddFlag("--overwrite", flags.overwrite, "Replace tables that are there");
}

void AddCatalogue(Command* command, GenerateFlags& flags) {
  Command* catalogue = command->AddCommand("catalogue", "A catalogue file with uniform SIDs");
  catalogue::GenerateOptions& options = flags.catalogue;
  catalogue->AddNumber("--items", options.items, {1, catalogue::kMaxItems}, "Items")->ShowDefault();
  catalogue->AddNumber("--levels", options.levels, {1, kMaxLevels}, "Codes of a SID")->ShowDefault();
  catalogue->AddNumber("--codes", options.codes, {1, kMaxLevelSize}, "Codes per level")->ShowDefault();
  catalogue->AddNumber("--seed", options.seed, {}, "Another seed, another catalogue")->ShowDefault();
  catalogue->AddText("--codebook-fingerprint", options.codebook_fingerprint,
                     "Stamp of a codebook; empty: one that no model has");
  catalogue->AddText("--out", flags.catalogue_out, "The catalogue file")->Required();
  catalogue->AddFlag("--overwrite", flags.overwrite, "Replace a file that is there");
}

void AddVectors(Command* command, GenerateFlags& flags) {
  Command* vectors = command->AddCommand("vectors", "Item vectors for the tokenizer");
  vectors->AddNumber("--items", flags.vectors.items, {1, 1e8}, "Items")->ShowDefault();
  vectors->AddNumber("--dim", flags.vectors.dim, {1, 4096}, "Dimension")->ShowDefault();
  vectors->AddNumber("--seed", flags.vectors.seed, {}, "Another seed, other vectors")->ShowDefault();
  vectors->AddText("--out", flags.vectors_out, "The safetensors file")->Required();
  vectors->AddFlag("--overwrite", flags.overwrite, "Replace a file that is there");
}

}  // namespace

Verb AddGenerateData(Command& root) {
  auto flags = std::make_shared<GenerateFlags>();
  Command* command = root.AddCommand("generate-data", "Make up a behaviour log, a catalogue or item vectors");
  command->Footer(kExamples);
  command->RequireCommand();
  AddLog(command, *flags);
  AddCatalogue(command, *flags);
  AddVectors(command, *flags);
  return {command, [command, flags] {
            Progress progress;
            if (command->parsed("log")) return GenerateLog(*flags, &progress);
            if (command->parsed("vectors")) return GenerateVectors(*flags, &progress);
            return GenerateCatalogue(*flags, &progress);
          }};
}

}  // namespace beamline::cli
