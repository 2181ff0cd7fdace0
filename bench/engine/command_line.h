// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>

namespace beamline::bench {

// False where there is nothing to run: `exit` is the status then, 0 after --help, 2 where a word is wrong.
inline bool ParseCommandLine(CLI::App& app, int argc, char** argv, int& exit) {
  try {
    app.parse(argc, argv);
    return true;
  } catch (const CLI::ParseError& error) {
    exit = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
}

}  // namespace beamline::bench
