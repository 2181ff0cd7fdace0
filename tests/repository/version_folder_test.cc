// SPDX-License-Identifier: Apache-2.0
#include "repository/version_folder.h"

#include <fstream>

#include <fcntl.h>
#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "repository/fake_loader.h"

namespace beamline::repository {
namespace {

using ::testing::ElementsAre;

std::vector<int64_t> Numbers(const std::filesystem::path& folder) {
  const auto versions = ListVersions(folder, "bundle.json", 0);
  EXPECT_TRUE(versions.ok()) << versions.status();
  std::vector<int64_t> numbers;
  for (const FolderVersion& version : *versions) numbers.push_back(version.number);
  return numbers;
}

TEST(VersionFolderTest, NumbersAreCanonical) {
  EXPECT_EQ(ParseVersionNumber("1"), 1);
  EXPECT_EQ(ParseVersionNumber("20261125"), 20261125);
  EXPECT_EQ(ParseVersionNumber("9223372036854775807"), INT64_MAX);
  for (const char* name : {"", "0", "01", "-1", "+1", "1e3", "1.0", " 1", "1 ", "latest", "v1", "1.tmp", ".1",
                           "9223372036854775808", "99999999999999999999999"}) {
    EXPECT_EQ(ParseVersionNumber(name), std::nullopt) << name;
  }
}

TEST(VersionFolderTest, OrdersByNumberAndPassesOverTheRest) {
  const auto folder = TestFolder();
  for (const char* name : {"9", "10", "2", "011", "latest", "3.partial"}) WriteBundle(folder / name, name);
  std::filesystem::create_directories(folder / "77");  // no manifest yet
  std::ofstream(folder / "88") << "a file";
  EXPECT_THAT(Numbers(folder), ElementsAre(2, 9, 10));
}

TEST(VersionFolderTest, FindsWhatWasMeantToBeAVersion) {
  const auto root = TestFolder(), folder = root / "versions";
  for (const char* name : {"1", "0020", "v21", "1e3", ".hidden"}) WriteBundle(folder / name, name);
  WriteBundle(root / "elsewhere", "elsewhere");
  std::filesystem::create_directories(folder / "notes");  // no bundle
  std::filesystem::create_symlink("1", folder / "latest");
  std::filesystem::create_symlink(root / "elsewhere", folder / "release");
  std::vector<std::string> names;
  for (const auto& [path, stamp] : ListMisnamed(folder, "bundle.json")) {
    names.push_back(std::filesystem::path(path).filename());
    EXPECT_NE(stamp, "") << path;
  }
  EXPECT_THAT(names, ElementsAre("0020", "1e3", "release", "v21"));
  EXPECT_TRUE(ListMisnamed(folder / "absent", "bundle.json").empty());
}

TEST(VersionFolderTest, AFileMayBeDatedAfterTheYear2262) {
  const auto file = TestFolder() / "file";
  std::ofstream(file) << "text";
  std::string before;
  for (const time_t seconds : {time_t{9300000000}, time_t{9300000001}}) {
    const timespec times[2] = {{seconds, 5}, {seconds, 5}};
    ASSERT_EQ(utimensat(AT_FDCWD, file.c_str(), times, 0), 0);
    struct stat dated = {};
    ASSERT_EQ(stat(file.c_str(), &dated), 0);
    if (dated.st_mtim.tv_sec != seconds) GTEST_SKIP() << "this file system knows no such dates";
    const std::string stamp = StampOfFile(file);
    EXPECT_THAT(stamp, ::testing::StartsWith(absl::StrCat("4,", seconds, ".")));
    EXPECT_NE(stamp, before);
    before = stamp;
  }
}

// Root may look everywhere; nobody follows a link to itself.
TEST(VersionFolderTest, WhatCannotBeLookedIntoIsAVersion) {
  const auto folder = TestFolder();
  std::filesystem::create_directories(folder / "5");
  std::filesystem::create_symlink("bundle.json", folder / "5" / "bundle.json");
  EXPECT_THAT(Numbers(folder), ElementsAre(5));
}

TEST(VersionFolderTest, TheStampFollowsTheFiles) {
  const auto folder = TestFolder();
  const auto stamp = [&](int64_t floor = 0) { return (*ListVersions(folder, "bundle.json", floor))[0].stamp; };
  WriteBundle(folder / "1", "text");
  const std::string before = stamp();
  EXPECT_EQ(stamp(), before);
  EXPECT_EQ(stamp(1), "");
  std::ofstream(folder / "1" / "model.safetensors") << "ab";
  const std::string more = stamp();
  EXPECT_NE(more, before);
  std::ofstream(folder / "1" / "model.safetensors", std::ios::app) << "cd";
  EXPECT_NE(stamp(), more);
}

TEST(VersionFolderTest, AFolderThatCannotBeListedIsAnError) {
  EXPECT_EQ(ListVersions(TestFolder() / "absent", "bundle.json", 0).status().code(), absl::StatusCode::kUnavailable);
}

TEST(VersionFolderTest, TenThousandVersions) {
  const auto folder = TestFolder();
  for (int i = 1; i <= 10'000; ++i) std::filesystem::create_directory(folder / std::to_string(i));
  WriteBundle(folder / "9999", "text");
  EXPECT_THAT(Numbers(folder), ElementsAre(9999));
}

}  // namespace
}  // namespace beamline::repository
