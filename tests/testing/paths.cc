// SPDX-License-Identifier: Apache-2.0
#include "testing/paths.h"

namespace beamline::test_paths {

const std::string& SourceDir() {
  static const std::string path = BEAMLINE_TEST_SOURCE_DIR;
  return path;
}

const std::string& SharedDir() {
  static const std::string path = BEAMLINE_TEST_SOURCE_DIR "/../shared";
  return path;
}

}  // namespace beamline::test_paths
