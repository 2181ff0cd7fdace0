// SPDX-License-Identifier: Apache-2.0
//
// A folder per test, removed at its end, and small helpers to fill it.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "testing/paths.h"

namespace beamline::data {

class FolderTest : public ::testing::Test {
 protected:
  FolderTest() {
    const ::testing::TestInfo* info = ::testing::UnitTest::GetInstance()->current_test_info();
    folder_ = std::filesystem::path(::testing::TempDir()) /
              absl::StrCat("beamline_", info->test_suite_name(), "_", info->name(), "_", getpid());
    std::filesystem::create_directories(folder_);
  }
  ~FolderTest() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path Path(const std::string& name) const { return folder_ / name; }

  std::filesystem::path WriteText(const std::string& name, std::string_view text) const {
    std::filesystem::create_directories(Path(name).parent_path());
    std::ofstream(Path(name), std::ios::binary) << text;
    return Path(name);
  }
  static std::string ReadText(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  }

  std::filesystem::path folder_;
};

// Skips the test, naming what is missing, where the shared data does not lie beside the checkout.
#define BEAMLINE_NEEDS_SHARED(path)                                            \
  do {                                                                         \
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "missing: " << (path); \
  } while (false)

inline std::filesystem::path SharedData(const std::string& name) {
  return std::filesystem::path(BEAMLINE_SHARED_DIR) / "data" / name;
}

// EXPECT_PRED_FORMAT2(IsError, status, "text in its message")
inline ::testing::AssertionResult IsError(const char*, const char*, const absl::Status& status,
                                          const std::string& text) {
  if (status.ok()) return ::testing::AssertionFailure() << "no error, expected one with '" << text << "'";
  if (std::string(status.message()).find(text) != std::string::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "'" << status << "' does not hold '" << text << "'";
}

}  // namespace beamline::data
