// SPDX-License-Identifier: Apache-2.0
//
// A verb of the `beamline` binary: it adds its command with options and says how to run.
// One file per verb, named after it: cli/<verb>.cc. A verb parses options, calls the library, prints; it holds no logic
// of its own. Errors come back as absl::Status and are printed once, by main, as "beamline <verb>: <message>"; the exit
// code is 0, 2 (bad usage, input or configuration), 130 (interrupted) or 1 (anything else).
#pragma once

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "cli/command.h"

namespace beamline::cli {

// What was read from a flag, or why it was not, with the flag in front.
template <typename T>
absl::StatusOr<T> FromFlag(absl::string_view flag, absl::StatusOr<T> value) {
  if (value.ok()) return value;
  return absl::Status(value.status().code(), absl::StrCat(flag, ": ", value.status().message()));
}

struct Verb {
  Command* command = nullptr;  // owned by the command line
  std::function<absl::Status()> run;
};

Verb AddServe(Command& root);
Verb AddRecommend(Command& root);
Verb AddReload(Command& root);
Verb AddBench(Command& root);
Verb AddImport(Command& root);
Verb AddGenerateData(Command& root);
Verb AddTokenize(Command& root);
Verb AddTrain(Command& root);
Verb AddTrainRanker(Command& root);
Verb AddEvaluate(Command& root);
Verb AddPack(Command& root);
Verb AddInspect(Command& root);
Verb AddExport(Command& root);

}  // namespace beamline::cli
