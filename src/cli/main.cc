// SPDX-License-Identifier: Apache-2.0
//
// The `beamline` binary: finds the verb, runs it, prints its error, turns it into an exit code (see verb.h).
#include <algorithm>
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/interrupt.h"
#include "cli/verb.h"

namespace beamline::cli {
namespace {

constexpr int kBadUsage = 2;
constexpr int kInterrupted = 130;

constexpr char kAbout[] =
    "Beamline makes and serves generative recommenders: a user's behaviour goes in, ranked videos come out, found by\n"
    "beam search over semantic IDs (SIDs) that can only reach items of the catalogue.";

constexpr char kJourney[] =
    R"(The whole way, from nothing to recommendations:

  beamline generate-data log --users 3000 --out data           # or your own log: beamline import --help
  beamline tokenize --events data --preset demo --out tokenizer          # items -> semantic IDs
  beamline train --data data --tokenizer tokenizer --preset demo --out model
  beamline evaluate --model model --data data --tokenizer tokenizer      # beside popularity, Markov, item-KNN
  beamline pack --model model --tokenizer tokenizer --items data/items.tsv.gz --out bundle
  beamline serve --config configs/demo.textproto --bundle bundle &
  beamline recommend --target 127.0.0.1:50051 --user u7 --data data

`beamline VERB --help` explains each step with examples. Every file is written under a temporary name and renamed when
complete, so Ctrl-C leaves nothing half-written. Exit codes: 0 done; 2 bad usage, input or configuration; 130
interrupted; 1 anything else.)";

// In the order of the journey.
std::vector<Verb> AddVerbs(CLI::App& app) {
  return {AddGenerateData(app), AddImport(app),  AddTokenize(app), AddTrain(app),     AddEvaluate(app), AddPack(app),
          AddExport(app),       AddInspect(app), AddServe(app),    AddRecommend(app), AddReload(app)};
}

int ExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kOk:
      return 0;
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kAlreadyExists:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kOutOfRange:
    case absl::StatusCode::kDataLoss:
      return kBadUsage;
    case absl::StatusCode::kCancelled:
      return kInterrupted;
    default:
      return 1;
  }
}

void PrintError(const std::string& verb, absl::string_view message) {
  for (absl::string_view line : absl::StrSplit(message, '\n')) {
    std::fprintf(stderr, "beamline %s: %.*s\n", verb.c_str(), static_cast<int>(line.size()), line.data());
  }
}

// CLI11's errors in the form of ours: one line, the verb in front, the way out behind.
std::string UsageError(const CLI::App* app, const CLI::Error& error) {
  std::string command = "beamline";
  for (; !app->get_subcommands().empty(); app = app->get_subcommands().front()) {
    absl::StrAppend(&command, " ", app->get_subcommands().front()->get_name());
  }
  return absl::StrCat(command, ": ", error.what(), "; see `", command, " --help`\n");
}

int Run(const Verb& verb) {
  const std::string name = verb.command->get_name();
  try {
    const absl::Status status = verb.run();
    if (!status.ok()) PrintError(name, status.message());
    return ExitCode(status);
  } catch (const std::exception& error) {  // out of memory, or our own bug: nothing throws across layers
    PrintError(name, absl::StrCat("internal error: ", error.what()));
    return 1;
  }
}

int Main(int argc, char** argv) {
  InstallInterruptHandler();
  CLI::App app(kAbout, "beamline");
  app.footer(kJourney);
  app.set_version_flag("--version", "beamline " BEAMLINE_VERSION, "Print the version and exit");
  app.require_subcommand(1);
  app.failure_message(UsageError);
  const std::vector<Verb> verbs = AddVerbs(app);
  if (argc <= 1) {
    std::fputs(app.help().c_str(), stdout);
    return kBadUsage;
  }
  // CLI11 would only say that a subcommand is required.
  const std::string word = argv[1];
  if (word[0] != '-' &&
      std::none_of(verbs.begin(), verbs.end(), [&](const Verb& verb) { return verb.command->get_name() == word; })) {
    std::fprintf(stderr, "beamline: there is no verb '%s'; see beamline --help\n", word.c_str());
    return kBadUsage;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kBadUsage;
  }
  for (const Verb& verb : verbs) {
    if (verb.command->parsed()) return Run(verb);
  }
  return kBadUsage;
}

}  // namespace
}  // namespace beamline::cli

int main(int argc, char** argv) { return beamline::cli::Main(argc, argv); }
