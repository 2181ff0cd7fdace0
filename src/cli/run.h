// SPDX-License-Identifier: Apache-2.0
//
// All of the `beamline` binary but its main: finds the verb, runs it, prints its error, turns it into an exit code (see
// verb.h). Once per process: it installs the handlers of SIGINT and SIGTERM.
#pragma once

namespace beamline::cli {

int RunCommandLine(int argc, char** argv);

}  // namespace beamline::cli
