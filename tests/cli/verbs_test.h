// SPDX-License-Identifier: Apache-2.0
//
// For tests of the verbs as their users run them: a folder for each, a tiny log, and what a good or a bad end looks
// like.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "cli/binary.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::cli {

namespace fs = std::filesystem;

// Enough to train on in a second; everything else of the preset.
inline constexpr char kQuick[] =
    "--preset demo --validate-every 10 --validation-users 20 --validation-beam 16 --threads 1";

class VerbsTest : public ::testing::Test {
 protected:
  VerbsTest() { fs::create_directories(folder_); }
  std::string File(const std::string& name) const { return folder_ / name; }
  std::string Write(const std::string& name, const std::string& text) const {
    fs::create_directories(fs::path(File(name)).parent_path());
    std::ofstream(File(name), std::ios::binary) << text;
    return File(name);
  }
  Outcome Good(const std::string& arguments) const {
    const Outcome outcome = Beamline(arguments);
    EXPECT_EQ(outcome.exit_code, 0) << arguments << "\n" << outcome.text;
    return outcome;
  }
  // Exit code 2, and one line that names the verb and what is wrong.
  void Bad(const std::string& arguments, const std::string& names) const {
    const Outcome outcome = Beamline(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments << "\n" << outcome.text;
    EXPECT_THAT(outcome.text, ::testing::HasSubstr(names)) << arguments;
    EXPECT_THAT(outcome.text, ::testing::Not(::testing::HasSubstr("internal error"))) << arguments;
  }
  void MakeLog() const { Good(absl::StrCat("generate-data log --users 60 --seed 3 --out ", File("data"))); }
  void Tokenize() const {
    Good(absl::StrCat("tokenize --events ", File("data"), " --levels 8,8,8 --dim 8 --collision-free --threads 1 --out ",
                      File("tokenizer")));
  }
  std::string TrainArguments(const std::string& out, int epochs = 2) const {
    return absl::StrCat("train --data ", File("data"), " --tokenizer ", File("tokenizer"), " ", kQuick, " --epochs ",
                        epochs, " --out ", File(out));
  }
  // Files under their final names; there must be none under a temporary one.
  std::vector<std::string> Files(const std::string& name) const {
    std::vector<std::string> names;
    if (!fs::exists(File(name))) return names;
    for (const auto& entry : fs::recursive_directory_iterator(File(name))) {
      names.push_back(entry.path().filename());
      EXPECT_NE(names.back()[0], '.') << "left behind: " << entry.path();
      EXPECT_EQ(names.back().find(".tmp"), std::string::npos) << "left behind: " << entry.path();
      if (entry.is_directory()) names.pop_back();
    }
    std::sort(names.begin(), names.end());
    return names;
  }

  std::vector<std::string> HiddenFiles(const std::string& name) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::recursive_directory_iterator(File(name))) {
      const std::string file = entry.path().filename();
      if (entry.is_regular_file() && file[0] == '.') names.push_back(file);
    }
    return names;
  }

  // A folder per test, also where one process runs several.
  const fs::path folder_ =
      fs::path(::testing::TempDir()) / ::testing::UnitTest::GetInstance()->current_test_info()->name();
};

}  // namespace beamline::cli
