// SPDX-License-Identifier: Apache-2.0
//
// Each case in a child process: the logger is chosen once. They leave by _exit, so that the temporary folder stays.
#include "base/log.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include <unistd.h>

#include "gtest/gtest.h"
#include "spdlog/sinks/basic_file_sink.h"

namespace beamline {
namespace {

std::string Slurp(const std::string& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

TEST(LogDeathTest, GoesToStandardErrorAndNothingToStandardOutput) {
  const std::string out = ::testing::TempDir() + "/log_test.out";
  EXPECT_EXIT(
      {
        if (std::freopen(out.c_str(), "w", stdout) == nullptr) _exit(1);
        Log().info("model loading: id={}", 7);
        std::fflush(stdout);
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "model loading: id=7");
  EXPECT_EQ(Slurp(out), "");
}

TEST(LogDeathTest, GoesToTheLoggerOfTheProgram) {
  const std::string file = ::testing::TempDir() + "/log_test.log";
  EXPECT_EXIT(
      {
        spdlog::basic_logger_mt("beamline", file, true);
        Log().info("model loading: id={}", 8);
        Log().flush();
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "^$");
  EXPECT_NE(Slurp(file).find("model loading: id=8"), std::string::npos);
}

}  // namespace
}  // namespace beamline
