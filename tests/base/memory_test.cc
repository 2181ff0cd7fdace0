// SPDX-License-Identifier: Apache-2.0
//
// What is available by what the system's files say, in folders that look like them.
#include "base/memory.h"

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline {
namespace {

using ::testing::HasSubstr;

class MemoryTest : public ::testing::Test {
 protected:
  MemoryTest() {
    std::filesystem::remove_all(folder_);
    Write("meminfo", "MemTotal:  16000 kB\nMemFree:  100 kB\nMemAvailable:  8000 kB\nBuffers:  1 kB\n");
  }
  void Write(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    std::ofstream(folder_ / name) << text;
  }
  void Group(const std::string& path, const std::string& limit, const std::string& used) {
    Write("groups" + path + "/memory.max", limit + "\n");
    Write("groups" + path + "/memory.current", used + "\n");
  }
  int64_t Available() const {
    return AvailableMemory(
        {(folder_ / "meminfo").string(), {(folder_ / "cgroup").string(), (folder_ / "groups").string()}});
  }

  const std::filesystem::path folder_ = std::filesystem::path(::testing::TempDir()) / "memory_test";
};

TEST_F(MemoryTest, TheMachinesWithoutAGroup) { EXPECT_EQ(Available(), 8000 * 1024); }

TEST_F(MemoryTest, AContainersLimitIsLess) {
  Write("cgroup", "0::/\n");
  Group("", "3000000", "1000000");
  EXPECT_EQ(Available(), 2000000);
  Write("groups/memory.stat", "anon 500000\ninactive_file 400000\nactive_file 50000\nslab_reclaimable 3000\n");
  EXPECT_EQ(Available(), 2453000) << "the kernel gives up file cache before it kills";
  Group("", "3000000", "4000000");
  Write("groups/memory.stat", "inactive_file 0\n");
  EXPECT_EQ(Available(), 0);
  Group("", "max", "1000000");
  EXPECT_EQ(Available(), 8000 * 1024);
  Group("", "900000000000", "1000000");
  EXPECT_EQ(Available(), 8000 * 1024) << "more than the machine has";
}

TEST_F(MemoryTest, GroupsAboveLimitToo) {
  Write("cgroup", "4:memory:/old\n0::/pods/one\n");
  Group("/pods/one", "max", "10");
  Group("/pods", "5000000", "4000000");
  EXPECT_EQ(Available(), 1000000);
  Group("/pods/one", "700000", "100000");
  EXPECT_EQ(Available(), 600000);
  Group("/pods/two", "1", "1");
  EXPECT_EQ(Available(), 600000) << "somebody else's";
}

TEST_F(MemoryTest, NobodySays) {
  std::filesystem::remove_all(folder_);
  EXPECT_EQ(Available(), std::numeric_limits<int64_t>::max());
}

TEST_F(MemoryTest, ARefusalNamesWhatNumbersAndRemedy) {
  EXPECT_TRUE(CheckMemory("3 items", 100, "take fewer", 100).ok());
  EXPECT_TRUE(CheckMemory("3 items", 1, "take fewer").ok());
  EXPECT_EQ(CheckMemory("3 items", 2'000'000'000, "take fewer", 1'000'000'000),
            absl::ResourceExhaustedError("3 items need about 2.00 GB of memory, 1.00 GB is the limit; take fewer"));
  const MemoryNeed parts{"3 items", {{"ids", 2'000'000'000}, {"names", 1'500'000}}, "take fewer"};
  EXPECT_EQ(CheckMemory(parts, 1'000'000'000).message(),
            "3 items need about 2.00 GB of memory (ids 2.00 GB, names 1.5 MB), 1.00 GB is the limit; take fewer");
  EXPECT_EQ(CheckDeviceMemory(parts, 2'000'000'000),
            absl::ResourceExhaustedError("3 items need about 2.00 GB of the device's memory (ids 2.00 GB, names 1.5 "
                                         "MB), 2.00 GB are free; take fewer"));
  EXPECT_TRUE(CheckDeviceMemory(parts, 2'001'500'000).ok());
  EXPECT_THAT(CheckMemory("3 items", int64_t{1} << 60, "take fewer").ToString(), HasSubstr("GB are free; take fewer"));
}

TEST(StatusOfErrno, MemoryIsNoOtherThanTheAllocators) {
  EXPECT_EQ(StatusOfErrno(ENOMEM, "cannot list x"),
            absl::ResourceExhaustedError("cannot list x: Cannot allocate memory"));
  EXPECT_EQ(StatusOfErrno(ENOENT, "cannot open x"), absl::ErrnoToStatus(ENOENT, "cannot open x"));
}

TEST(BesideEstimate, TellsItOnceAndOfMemoryAlone) {
  const absl::Status once = BesideEstimate(absl::ResourceExhaustedError("out"), "weights 1 MB");
  EXPECT_EQ(once, absl::ResourceExhaustedError("out; estimated before: weights 1 MB"));
  EXPECT_EQ(BesideEstimate(once, "weights 1 MB", "batches"), once);
  EXPECT_EQ(BesideEstimate(absl::ResourceExhaustedError("out"), "weights 1 MB", "batches").message(),
            "out; estimated before, without batches: weights 1 MB");
  EXPECT_EQ(BesideEstimate(absl::ResourceExhaustedError("out"), "").message(), "out");
  EXPECT_EQ(BesideEstimate(absl::InternalError("broken"), "weights 1 MB"), absl::InternalError("broken"));
  EXPECT_TRUE(BesideEstimate(absl::OkStatus(), "weights 1 MB").ok());
}

}  // namespace
}  // namespace beamline
