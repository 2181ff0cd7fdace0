// SPDX-License-Identifier: Apache-2.0
//
// Where tests find the source tree and the shared data beside it. The two paths are compiled into one small library and
// nowhere else, so that a compiler cache serves any checkout.
#pragma once

#include <string>

namespace beamline::test_paths {

const std::string& SourceDir();
const std::string& SharedDir();  // may not exist: tests that need it skip and say so

}  // namespace beamline::test_paths

#define BEAMLINE_SOURCE_DIR ::beamline::test_paths::SourceDir()
#define BEAMLINE_SHARED_DIR ::beamline::test_paths::SharedDir()
