// SPDX-License-Identifier: Apache-2.0
#include "base/cgroup.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include <sched.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline {
namespace {

class CgroupTest : public ::testing::Test {
 protected:
  ~CgroupTest() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((folder_ / path).parent_path());
    std::ofstream(folder_ / path) << text;
  }
  CgroupFiles Files() const { return {(folder_ / "own").string(), (folder_ / "groups").string()}; }

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) / absl::StrCat("cgroup_test_", ::getpid());
  const int machine_ = UsableCores({"/nowhere", "/nowhere"});
};

TEST_F(CgroupTest, EveryGroupAboveTheOwnOneIsNamed) {
  Write("own", "4:memory:/old\n0::/pods/one\n");
  const std::string root = Files().root;
  EXPECT_THAT(CgroupFolders(Files()), ::testing::ElementsAre(root + "/pods/one", root + "/pods", root));
}

TEST_F(CgroupTest, TheLeastQuotaBoundsTheCoresRoundedUp) {
  Write("own", "0::/pods/one\n");
  EXPECT_EQ(UsableCores(Files()), machine_) << "no group says anything";
  Write("groups/pods/one/cpu.max", "max 100000\n");
  EXPECT_EQ(UsableCores(Files()), machine_);
  Write("groups/pods/cpu.max", "50000 100000\n");
  EXPECT_EQ(UsableCores(Files()), 1) << "half of one is at least one";
  Write("groups/pods/cpu.max", "100000 100000\n");
  EXPECT_EQ(UsableCores(Files()), 1);
  Write("groups/pods/cpu.max", "100001 100000\n");
  EXPECT_EQ(UsableCores(Files()), std::min(machine_, 2));
  Write("groups/pods/cpu.max", "90000000 100000\n");
  EXPECT_EQ(UsableCores(Files()), std::min(machine_, 900));
  Write("groups/pods/cpu.max", "nonsense\n");
  EXPECT_EQ(UsableCores(Files()), machine_);
}

TEST_F(CgroupTest, AThreadThatIsHeldToOneCoreHasOne) {
  std::thread([&] {
    cpu_set_t before, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof(before), &before), 0);
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++core) {
      if (CPU_ISSET(core, &before)) CPU_SET(core, &one);
    }
    EXPECT_EQ(UsableCores(Files()), CPU_COUNT(&before));
    ASSERT_EQ(sched_setaffinity(0, sizeof(one), &one), 0);
    EXPECT_EQ(UsableCores(Files()), 1);
  }).join();
}

}  // namespace
}  // namespace beamline
