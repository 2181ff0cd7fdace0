// SPDX-License-Identifier: Apache-2.0
#include "train/model_folder.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::train {
namespace {

namespace fs = std::filesystem;

class ModelFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(files_.path);
    fs::create_directories(files_.path);
  }
  void Write(const std::string& file, const std::string& text) const {
    fs::create_directories(fs::path(files_.path + "/" + file).parent_path());
    std::ofstream(files_.path + "/" + file) << text;
  }
  void WriteModel(const std::string& text) const {
    for (const char* name : kFiles) Write(name, text);
  }
  // Every file below the folder, by its path from there.
  std::map<std::string, std::string> Contents() const {
    std::map<std::string, std::string> contents;
    for (const auto& entry : fs::recursive_directory_iterator(files_.path)) {
      if (!entry.is_regular_file()) continue;
      std::ifstream in(entry.path());
      contents[fs::relative(entry.path(), files_.path)] = {std::istreambuf_iterator<char>(in), {}};
    }
    return contents;
  }
  static std::map<std::string, std::string> Model(const std::string& text, const std::string& below = "") {
    std::map<std::string, std::string> files;
    for (const char* name : kFiles) files[below + name] = text;
    return files;
  }

  static constexpr const char* kFiles[] = {"config.json", "vocabulary.safetensors", "training.json",
                                           "model.safetensors"};
  const ModelFolder files_{testing::TempDir() + "/model"};
};

TEST_F(ModelFolderTest, AModelIsSetAsideWholeWithoutItsCheckpoint) {
  WriteModel("old");
  Write("checkpoint.safetensors", "half");
  ASSERT_TRUE(SetModelAside(files_).ok());
  EXPECT_EQ(Contents(), Model("old", "replaced/"));
  EXPECT_THAT(std::string(TellOfReplaced(files_, absl::CancelledError("stopped")).message()),
              testing::AllOf(testing::StartsWith("stopped; the model that was there is in "),
                             testing::HasSubstr("/model/replaced until another one is whole")));
  // A run that was broken off leaves nothing to set aside: what an earlier one did stays.
  Write("config.json", "new");
  ASSERT_TRUE(SetModelAside(files_).ok());
  WriteModel("new");
  EXPECT_EQ(TellOfReplaced(files_, absl::CancelledError("stopped")).message(), "stopped") << "another one is whole";
  RemoveReplaced(files_);
  EXPECT_EQ(Contents(), Model("new"));
  EXPECT_FALSE(fs::exists(files_.replaced()));
}

// Killed at any place between the first file that it moves and the last.
TEST_F(ModelFolderTest, WhatWasBrokenOffGoesOn) {
  for (int moved = 0; moved < 4; ++moved) {
    SetUp();
    WriteModel("old");
    fs::create_directories(files_.replaced());
    for (int i = 0; i < moved; ++i) {
      fs::rename(files_.path + "/" + kFiles[i], files_.replaced() + "/" + kFiles[i]);
    }
    ASSERT_TRUE(SetModelAside(files_).ok());
    EXPECT_EQ(Contents(), Model("old", "replaced/")) << moved;
  }
}

TEST_F(ModelFolderTest, OnlyAModelIsRemoved) {
  WriteModel("new");
  Write("replaced/mine.txt", "notes");
  RemoveReplaced(files_);
  std::map<std::string, std::string> expected = Model("new");
  expected["replaced/mine.txt"] = "notes";
  EXPECT_EQ(Contents(), expected);
}

TEST_F(ModelFolderTest, WhatARunWouldRemoveIsNoSourceOfIt) {
  WriteModel("old");
  ASSERT_TRUE(SetModelAside(files_).ok());
  EXPECT_TRUE(CheckNotReplaced(files_, files_.path, "--from").ok());
  EXPECT_TRUE(CheckNotReplaced(files_, files_.path + "/none", "--from").ok());
  EXPECT_THAT(std::string(CheckNotReplaced(files_, files_.path + "/../model/replaced/", "--from").message()),
              testing::AllOf(testing::StartsWith("--from: "), testing::HasSubstr("move it away")));
}

}  // namespace
}  // namespace beamline::train
