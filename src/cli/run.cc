// SPDX-License-Identifier: Apache-2.0
#include "cli/run.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include <signal.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/program.h"
#include "cli/verb.h"

namespace beamline::cli {
namespace {

constexpr int kBadUsage = 2;
constexpr int kInterrupted = 130;
constexpr char kStarved[] = "; is there too little memory, or a limit (ulimit -v, -u, the cgroup's)?";

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
std::vector<Verb> AddVerbs(Command& root) {
  return {AddGenerateData(root), AddImport(root), AddTokenize(root), AddTrain(root),   AddTrainRanker(root),
          AddEvaluate(root),     AddPack(root),   AddExport(root),   AddInspect(root), AddServe(root),
          AddRecommend(root),    AddReload(root), AddBench(root)};
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

// Of a thread that no verb waits for, or thrown where nothing may throw: the last word names it. Then the default,
// which ends the process and, in a server, leaves the flight record.
[[noreturn]] void OnTerminate() {
  const char* what = "an exception of unknown type";
  const std::exception_ptr exception = std::current_exception();
  try {
    if (exception != nullptr) std::rethrow_exception(exception);
    what = "no exception";
  } catch (const std::exception& error) {
    what = error.what();
  } catch (...) {  // NOLINT(bugprone-empty-catch): said already
  }
  std::fprintf(stderr, "beamline: ended by %s%s\n", what, kStarved);
  std::abort();
}

int Run(const Verb& verb) {
  const std::string name = verb.command->name();
  try {
    absl::Status status = verb.run();
    errno = 0;
    if (status.ok() && (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)) {
      status = absl::UnknownError(
          absl::StrCat("cannot write to standard output", errno != 0 ? absl::StrCat(": ", std::strerror(errno)) : ""));
    }
    const bool told = status.GetPayload(kLoggedPayload).has_value();
    if (!status.ok() && !told) PrintError(name, status.message().empty() ? status.ToString() : status.message());
    return ExitCode(status);
  } catch (const std::exception& error) {  // out of memory, or our own bug: nothing throws across layers
    const bool starved = dynamic_cast<const std::bad_alloc*>(&error) || dynamic_cast<const std::system_error*>(&error);
    PrintError(name, absl::StrCat("internal error: ", error.what(), starved ? kStarved : ""));
    return 1;
  }
}

}  // namespace

int RunCommandLine(int argc, char** argv) {
  // Debian's Abseil looks for cycles at every lock that gRPC takes, in releases too.
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  InstallInterruptHandler();
  signal(SIGXFSZ, SIG_IGN);  // beyond `ulimit -f` a write fails, with an error that names the file
  std::set_terminate(OnTerminate);
  CommandLine command_line("beamline", kAbout, "beamline " + ProgramBuild());
  command_line.root()->Footer(kJourney);
  const std::vector<Verb> verbs = AddVerbs(*command_line.root());
  if (argc <= 1) {
    std::fputs(command_line.Help().c_str(), stdout);
    return kBadUsage;
  }
  // The parser would only say that a command is required.
  const std::string word = argv[1];
  if (word[0] != '-' &&
      std::none_of(verbs.begin(), verbs.end(), [&](const Verb& verb) { return verb.command->name() == word; })) {
    std::fprintf(stderr, "beamline: there is no verb '%s'; see beamline --help\n", word.c_str());
    return kBadUsage;
  }
  if (const std::optional<int> exit_code = command_line.Parse(argc, argv)) return *exit_code;
  for (const Verb& verb : verbs) {
    if (verb.command->parsed()) return Run(verb);
  }
  return kBadUsage;
}

}  // namespace beamline::cli
