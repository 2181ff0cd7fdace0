// SPDX-License-Identifier: Apache-2.0
//
// Which Beamline this is. A target of its own, beamline::program, so that a commit compiles one small file anew and
// leaves what is below it as it is. Pure functions.
#pragma once

#include <string>

namespace beamline {

std::string ProgramVersion();  // "0.1.0"
// "0123456789ab", "0123456789ab-dirty" where the tree had changes, what the builder gave as BEAMLINE_COMMIT, or
// "unknown": cmake/WriteCommit.cmake.
std::string ProgramCommit();
std::string ProgramBuild();  // "0.1.0 (0123456789ab)"

}  // namespace beamline
