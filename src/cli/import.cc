// SPDX-License-Identifier: Apache-2.0
#include "data/import.h"

#include <cstdio>
#include <memory>
#include <string>

#include "base/progress.h"
#include "beamline/status.h"
#include "cli/import_hf.h"
#include "cli/verb.h"
#include "data/labels.h"

namespace beamline::cli {
namespace {

constexpr char kExamples[] =
    R"(Data sets become DIR/events.tsv.gz and, where the source has them, items.tsv.gz and users.tsv.gz: the tables all other verbs
read. Bad rows are counted and shown with their line; a file with more than --max-bad-rows of them is refused.

The official KuaiRand archive, or any subset of its files, plain or gzip:
  beamline import kuairand KuaiRand-Pure/data --out data

A file with one user per line, items in time order (four layouts, recognised by the first line):
  beamline import sequences long_view_5core.tsv.gz --labels long_view --out data

Amazon 5-core (Beauty.txt, item_titles.tsv, Beauty_item2attributes.json), and the SIDs of the LETTER authors, whose index
numbers items from 0:
  beamline import amazon amazon-beauty --out data
  beamline tokenize --from-index amazon-beauty/Beauty.index.json --dialect letter --id-offset 1 \
    --levels 256,256,256,256 --out tokenizer

A Hugging Face T5 (TIGER, LETTER and their kin: config.json, model.safetensors, tokenizer with SID tokens) with the
index of its SIDs, to a bundle that `beamline serve` loads:
  beamline import hf checkpoint --sid-index Beauty.index.json --id-offset 1 --out bundle

Your own log needs no import: write events.tsv with the header line
  user_id<TAB>item_id<TAB>timestamp_ms<TAB>play_time_ms<TAB>duration_ms<TAB>labels
(the first three are required; labels are names joined by '|', e.g. click|long_view) and, if you like, items.tsv with
  item_id<TAB>author_id<TAB>duration_ms<TAB>created_ms<TAB>relevance<TAB>tags<TAB>title   (tags: key=value;key=value)
and users.tsv with user_id and one column per attribute.)";

struct ImportFlags {
  std::string source;
  std::string labels = "click|long_view";
  bool plain = false;
  data::KuaiRandOptions kuairand;
  ImportHfFlags hf;
  data::ImportOptions import;
};

absl::Status Run(const Command& command, ImportFlags& flags) {
  if (command.parsed("hf")) return RunImportHf(flags.hf);
  Progress progress;
  flags.import.gzip = !flags.plain;
  flags.import.bad_rows.option = "--max-bad-rows";
  flags.import.progress = &progress;
  absl::StatusOr<data::ImportReport> report = absl::InternalError("no source");
  if (command.parsed("kuairand")) {
    report = data::ImportKuaiRand(flags.source, flags.kuairand, flags.import);
  } else if (command.parsed("sequences")) {
    BEAMLINE_ASSIGN_OR_RETURN(const uint32_t labels, FromFlag("--labels", data::ParseLabels(flags.labels)));
    report = data::ImportSequences(flags.source, labels, flags.import);
  } else {
    report = data::ImportAmazon(flags.source, flags.import);
  }
  if (!report.ok()) return report.status();
  for (const std::string& note : report->notes) std::printf("%s\n", note.c_str());
  std::printf("%s: %lld events, %lld items, %lld users\n", flags.import.out.c_str(),
              static_cast<long long>(report->events), static_cast<long long>(report->items),
              static_cast<long long>(report->users));
  return absl::OkStatus();
}

void AddCommonFlags(Command* source, const char* positional, const char* help, ImportFlags& flags) {
  source->AddText(positional, flags.source, help)->Required();
  source->AddPath("--out", flags.import.out, "Folder for the tables; made if it does not exist")->Required();
  source->AddFlag("--plain", flags.plain, "Write .tsv instead of .tsv.gz");
  source->AddFlag("--overwrite", flags.import.overwrite, "Replace tables that are there");
  source
      ->AddNumber("--max-bad-rows", flags.import.bad_rows.max_fraction, {0, 1},
                  "Fraction of a file's rows that may be bad")
      ->ShowDefault();
  source->AddNumber("--show-bad-rows", flags.import.bad_rows.max_shown, {0, 1000}, "Bad rows to show per file")
      ->ShowDefault();
}

}  // namespace

Verb AddImport(Command& root) {
  auto flags = std::make_shared<ImportFlags>();
  Command* command = root.AddCommand("import", "Turn somebody's data set into tables, or their model into a bundle");
  command->Footer(kExamples);
  command->RequireCommand();

  Command* kuairand = command->AddCommand("kuairand", "The official KuaiRand archive (Pure, 1K or 27K)");
  AddCommonFlags(kuairand, "DIR", "Folder with log_*.csv, video_features_*.csv, user_features_*.csv, plain or .gz",
                 *flags);
  kuairand->AddFlag("--include-random", flags->kuairand.include_random,
                    "Also take log_random_*: videos shown at random, another distribution than the standard log's");
  kuairand->AddFlag("--statistic-relevance", flags->kuairand.statistic_relevance,
                    "Items' relevance from video_features_statistic; it covers the test period, so not for evaluation");

  Command* sequences = command->AddCommand("sequences", "A file with one user per line, items in time order");
  AddCommonFlags(sequences, "FILE", "The sequence file, plain or .gz", *flags);
  sequences->AddText("--labels", flags->labels, "Labels of events whose file has none")->ShowDefault();

  Command* amazon = command->AddCommand("amazon", "Amazon 5-core in the LETTER authors' layout");
  AddCommonFlags(amazon, "DIR", "Folder with one .txt of lines 'user item item ...'; titles and attributes if there",
                 *flags);

  AddImportHf(*command, flags->hf);
  return {command, [command, flags] { return Run(*command, *flags); }};
}

}  // namespace beamline::cli
