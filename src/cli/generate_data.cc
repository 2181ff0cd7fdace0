// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <memory>
#include <string>

#include "base/file.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "beamline/status.h"
#include "catalogue/generate.h"
#include "catalogue/snapshot_file.h"
#include "cli/verb.h"
#include "data/generator.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(A short-video log with KuaiRand-Pure's shape (events per user, label rates, durations, authors, popularity) and
behaviour that can be learnt; the same seed gives the same log on every machine:
  beamline generate-data log --users 3000 --seed 1 --out data

A catalogue of made-up items with uniform SIDs, for measuring the search at any size:
  beamline generate-data catalogue --items 10000000 --levels 3 --codes 8192 --out catalogue.bin)";

struct GenerateFlags {
  data::LogGeneratorOptions log;
  data::ImportOptions tables;
  bool plain = false;
  catalogue::GenerateOptions catalogue;
  std::string catalogue_out;
};

absl::Status GenerateLog(GenerateFlags& flags, Progress* progress) {
  flags.tables.gzip = !flags.plain;
  flags.tables.progress = progress;
  BEAMLINE_ASSIGN_OR_RETURN(const data::ImportReport report, data::GenerateLog(flags.log, flags.tables));
  for (const std::string& note : report.notes) std::printf("%s", note.c_str());
  std::printf("written to %s\n", flags.tables.out.c_str());
  return absl::OkStatus();
}

absl::Status GenerateCatalogue(const GenerateFlags& flags, Progress* progress) {
  BEAMLINE_RETURN_IF_ERROR(CheckCanWrite(flags.catalogue_out, "--out"));
  BEAMLINE_ASSIGN_OR_RETURN(const auto snapshot, catalogue::GenerateCatalogue(flags.catalogue, progress));
  BEAMLINE_RETURN_IF_ERROR(catalogue::WriteSnapshot(*snapshot, flags.catalogue_out, progress));
  std::printf("%llu items, %llu SIDs, version %s -> %s\n", static_cast<unsigned long long>(snapshot->num_items()),
              static_cast<unsigned long long>(snapshot->num_sids()), snapshot->version().c_str(),
              flags.catalogue_out.c_str());
  return absl::OkStatus();
}

}  // namespace

Verb AddGenerateData(CLI::App& app) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate-data", "Make up a behaviour log or a catalogue");
  command->footer(kExamples);
  command->require_subcommand(1);

  CLI::App* log = command->add_subcommand("log", "A short-video log: events, items and users tables");
  log->add_option("--users", flags->log.users, "Users of the log")->capture_default_str();
  log->add_option("--items", flags->log.items, "Videos; 0: in KuaiRand's proportion to the users")
      ->capture_default_str();
  log->add_option("--seed", flags->log.seed, "Another seed, another world")->capture_default_str();
  log->add_option("--out", flags->tables.out, "Folder for the tables; made if it does not exist")->required();
  log->add_flag("--plain", flags->plain, "Write .tsv instead of .tsv.gz");

  CLI::App* catalogue = command->add_subcommand("catalogue", "A catalogue file with uniform SIDs");
  catalogue->add_option("--items", flags->catalogue.items, "Items")->capture_default_str();
  catalogue->add_option("--levels", flags->catalogue.levels, "Codes of a SID")->capture_default_str();
  catalogue->add_option("--codes", flags->catalogue.codes, "Codes per level")->capture_default_str();
  catalogue->add_option("--seed", flags->catalogue.seed, "Another seed, another catalogue")->capture_default_str();
  catalogue->add_option("--codebook-fingerprint", flags->catalogue.codebook_fingerprint,
                        "Stamp of a codebook; empty: one that no model has");
  catalogue->add_option("--out", flags->catalogue_out, "The catalogue file")->required();

  return {command, [log, flags] {
            InstallInterruptHandler();
            Progress progress;
            return log->parsed() ? GenerateLog(*flags, &progress) : GenerateCatalogue(*flags, &progress);
          }};
}

}  // namespace beamline::cli
