// SPDX-License-Identifier: Apache-2.0
//
// Gives every test process a temporary folder of its own, removed at its end, so that tests may run side by side with
// fixed file names: gtest's TempDir() and the standard library's temp_directory_path() both follow it.
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

namespace beamline::testing {
namespace {

class PrivateTempDir {
 public:
  PrivateTempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "beamline_test_XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) return;
    folder_ = pattern;
    setenv("TEST_TMPDIR", (pattern + "/").c_str(), 1);
    setenv("TMPDIR", pattern.c_str(), 1);
  }
  ~PrivateTempDir() {
    std::error_code ignored;
    if (!folder_.empty()) std::filesystem::remove_all(folder_, ignored);
  }

 private:
  std::filesystem::path folder_;
};

const PrivateTempDir kPrivateTempDir;

}  // namespace
}  // namespace beamline::testing
