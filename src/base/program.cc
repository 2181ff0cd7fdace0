// SPDX-License-Identifier: Apache-2.0
#include "base/program.h"

#include <string>

#include "absl/strings/str_cat.h"

namespace beamline {

extern const char kProgramCommit[];  // of the source that cmake/WriteCommit.cmake writes

std::string ProgramVersion() { return BEAMLINE_VERSION; }
std::string ProgramCommit() { return kProgramCommit; }
std::string ProgramBuild() { return absl::StrCat(ProgramVersion(), " (", ProgramCommit(), ")"); }

}  // namespace beamline
