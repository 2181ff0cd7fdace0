// SPDX-License-Identifier: Apache-2.0
//
// A verb of the `beamline` binary: it adds its sub-command with options to the CLI11 application and says how to run.
// One file per verb, named after it: cli/<verb>.cc. A verb parses options, calls the library, prints; it holds no logic
// of its own. Errors come back as absl::Status and are printed once, by main, as "beamline <verb>: <message>"; the exit
// code is 0, 2 (bad usage, input or configuration), 130 (interrupted) or 1 (anything else).
#pragma once

#include <functional>

#include <CLI/CLI.hpp>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace beamline::cli {

// What was read from a flag, or why it was not, with the flag in front.
template <typename T>
absl::StatusOr<T> FromFlag(absl::string_view flag, absl::StatusOr<T> value) {
  if (value.ok()) return value;
  return absl::Status(value.status().code(), absl::StrCat(flag, ": ", value.status().message()));
}

struct Verb {
  CLI::App* command = nullptr;
  std::function<absl::Status()> run;
};

Verb AddServe(CLI::App& app);
Verb AddRecommend(CLI::App& app);
Verb AddReload(CLI::App& app);
Verb AddImport(CLI::App& app);
Verb AddGenerateData(CLI::App& app);
Verb AddTokenize(CLI::App& app);
Verb AddTrain(CLI::App& app);
Verb AddEvaluate(CLI::App& app);
Verb AddPack(CLI::App& app);
Verb AddInspect(CLI::App& app);
Verb AddExport(CLI::App& app);

}  // namespace beamline::cli
