// SPDX-License-Identifier: Apache-2.0
#include "base/file.h"

#include <fstream>
#include <iterator>
#include <utility>

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"

namespace beamline {
namespace {

namespace fs = std::filesystem;

class FileTest : public ::testing::Test {
 protected:
  FileTest() {
    folder_ = fs::path(::testing::TempDir()) /
              absl::StrCat("file_test_", ::testing::UnitTest::GetInstance()->current_test_info()->name(), getpid());
    fs::create_directories(folder_);
  }
  ~FileTest() override { fs::remove_all(folder_); }

  void Put(const fs::path& path, std::string_view text) { std::ofstream(path, std::ios::binary) << text; }
  std::string Get(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  }
  int Entries() { return static_cast<int>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator())); }

  fs::path folder_;
};

TEST_F(FileTest, ReadsWholeFilesUpToTheLimit) {
  Put(folder_ / "a", std::string("x\0y", 3));
  EXPECT_EQ(ReadFile(folder_ / "a", 3).value(), std::string("x\0y", 3));
  const absl::Status over = ReadFile(folder_ / "a", 2).status();
  EXPECT_TRUE(absl::IsInvalidArgument(over)) << over;
  EXPECT_NE(over.message().find("3 bytes are more than the limit of 2"), std::string::npos) << over;
  Put(folder_ / "empty", "");
  EXPECT_EQ(ReadFile(folder_ / "empty", 0).value(), "");
}

TEST_F(FileTest, RefusesWhatIsNotARegularFile) {
  EXPECT_TRUE(absl::IsNotFound(ReadFile(folder_ / "absent", 10).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadFile(folder_, 10).status()));
  ASSERT_EQ(mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(ReadFile(folder_ / "pipe", 10).status()));  // and does not block
  EXPECT_TRUE(absl::IsInvalidArgument(ReadFile("/dev/zero", 10).status()));
}

TEST_F(FileTest, SparseFilesAreRefusedBeforeAllocation) {
  Put(folder_ / "sparse", "x");
  ASSERT_EQ(truncate((folder_ / "sparse").c_str(), int64_t{1} << 40), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(ReadFile(folder_ / "sparse", 1 << 20).status()));
  ASSERT_EQ(truncate((folder_ / "sparse").c_str(), int64_t{1} << 43), 0);  // more than any machine has
  const absl::Status no_memory = ReadFile(folder_ / "sparse", uint64_t{1} << 50).status();
  EXPECT_TRUE(absl::IsResourceExhausted(no_memory)) << no_memory;
  EXPECT_NE(no_memory.message().find("sparse: its bytes need about 8796"), std::string::npos) << no_memory;
}

TEST_F(FileTest, ReadsTheStartAlone) {
  Put(folder_ / "a", "abc");
  EXPECT_EQ(ReadFileStart(folder_ / "a", 2).value(), "ab");
  EXPECT_EQ(ReadFileStart(folder_ / "a", 9).value(), "abc");
  EXPECT_TRUE(absl::IsNotFound(ReadFileStart(folder_ / "absent", 1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(ReadFileStart("/dev/zero", 1).status()));
}

TEST_F(FileTest, NothingAppearsBeforeCommit) {
  const fs::path path = folder_ / "out";
  Put(path, "old");
  {
    AtomicFile file = AtomicFile::Create(path).value();
    ASSERT_TRUE(file.Write("new").ok());
    EXPECT_EQ(Get(path), "old");
  }
  EXPECT_EQ(Get(path), "old");
  EXPECT_EQ(Entries(), 1);  // the temporary file is gone

  AtomicFile file = AtomicFile::Create(path).value();
  ASSERT_TRUE(file.Write("....").ok());
  ASSERT_TRUE(file.Write("tail").ok());
  ASSERT_TRUE(file.WriteAt(0, "head").ok());
  EXPECT_EQ(file.size(), 8u);
  ASSERT_TRUE(file.Commit().ok());
  EXPECT_EQ(Get(path), "headtail");
  EXPECT_EQ(Entries(), 1);
  EXPECT_FALSE(file.Write("x").ok());
  EXPECT_FALSE(file.Commit().ok());
}

TEST_F(FileTest, MovedFilesBelongToTheTarget) {
  AtomicFile first = AtomicFile::Create(folder_ / "first").value();
  AtomicFile second = AtomicFile::Create(folder_ / "second").value();
  EXPECT_EQ(Entries(), 2);
  second = std::move(first);
  EXPECT_EQ(Entries(), 1);
  ASSERT_TRUE(second.Write("1").ok());
  ASSERT_TRUE(second.Commit().ok());
  EXPECT_TRUE(fs::exists(folder_ / "first"));
  EXPECT_EQ(Entries(), 1);
}

TEST_F(FileTest, CreateNamesTheTroubleOfTheTarget) {
  EXPECT_TRUE(absl::IsNotFound(AtomicFile::Create(folder_ / "no" / "folder").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(AtomicFile::Create(folder_).status()));
  EXPECT_FALSE(AtomicFile::Create("").ok());
}

TEST_F(FileTest, SaysBeforehandWhatCannotBeWritten) {
  EXPECT_TRUE(CheckCanWrite(folder_ / "new", "--out").ok());
  EXPECT_FALSE(fs::exists(folder_ / "new"));
  const absl::Status missing = CheckCanWrite(folder_ / "no" / "file", "--out");
  EXPECT_TRUE(absl::IsNotFound(missing)) << missing;
  EXPECT_EQ(missing.message().substr(0, 7), "--out: ");
  EXPECT_TRUE(absl::IsInvalidArgument(CheckCanWrite(folder_, "--out")));
}

// A finished file takes the place of what has its name: not of a device or a pipe.
TEST_F(FileTest, NeverReplacesWhatIsNoFile) {
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  fs::create_symlink(pipe, folder_ / "link");
  for (const fs::path& path : {pipe, folder_ / "link", fs::path("/dev/null")}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckCanWrite(path, "--out"))) << path;
    EXPECT_TRUE(absl::IsInvalidArgument(AtomicFile::Create(path).status())) << path;
  }
  EXPECT_TRUE(fs::is_fifo(pipe));
}

TEST_F(FileTest, MakesFolders) {
  EXPECT_TRUE(MakeFolder(folder_ / "a" / "b").ok());
  EXPECT_TRUE(MakeFolder(folder_ / "a" / "b").ok());
  ASSERT_TRUE(WriteFileAtomically(folder_ / "a" / "f", "text").ok());
  EXPECT_EQ(Get(folder_ / "a" / "f"), "text");
  EXPECT_FALSE(MakeFolder(folder_ / "a" / "f").ok());
}

}  // namespace
}  // namespace beamline
