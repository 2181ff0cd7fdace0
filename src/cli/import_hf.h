// SPDX-License-Identifier: Apache-2.0
//
// `beamline import hf`: the flags, and what prints the result of runtime/import_hf.h.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "cli/command.h"
#include "runtime/import_hf.h"

namespace beamline::cli {

struct ImportHfFlags {
  runtime::ImportHfOptions options;
  std::string folder, items, out, model_out, levels;
  std::string prefix, suffix;  // tokens separated by spaces
  Option *prefix_option = nullptr, *suffix_option = nullptr;
};

// `flags` outlive the command.
void AddImportHf(Command& import, ImportHfFlags& flags);
absl::Status RunImportHf(const ImportHfFlags& flags);

}  // namespace beamline::cli
