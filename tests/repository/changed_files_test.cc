// SPDX-License-Identifier: Apache-2.0
//
// Bundles that are replaced, mended and completed while the repository looks at them.
#include <filesystem>
#include <fstream>

#include "absl/time/clock.h"
#include "base/may_pass.h"
#include "gmock/gmock.h"
#include "repository/repository_fixture.h"

namespace beamline::repository {
namespace {

using ::testing::ElementsAre;
using Code = absl::StatusCode;

class ChangedFilesTest : public ModelRepositoryTest {
 protected:
  // Another text of the same length, with the time of the one before, as `cp -p` of a good copy has it.
  static void WriteOver(const std::filesystem::path& file, const std::string& text) {
    const auto time = std::filesystem::last_write_time(file);
    const std::string before = StampOfFile(file);
    for (int tries = 0; tries < 1000 && StampOfFile(file) == before; ++tries) {
      absl::SleepFor(absl::Milliseconds(1));  // the kernel's clock of files may stand still for ten
      std::ofstream(file) << text;
      std::filesystem::last_write_time(file, time);
    }
  }
};

TEST_F(ChangedFilesTest, WhatCameInPlaceOfABundleIsNotTakenForIt) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  const std::string current = WriteBundle(folder_ / "current", "b");
  loader_->during_load = [&] { WriteBundle(folder_ / "current", "c"); };
  EXPECT_EQ(Reload(current).status().code(), Code::kAborted);
  EXPECT_EQ(Serving(), "a");
  loader_->during_load = nullptr;
  EXPECT_EQ(Reload(current)->model_version, "c");
  EXPECT_EQ(Reload(WriteBundle(folder_ / "current", "b"))->model_version, "b") << "loaded, not found to be there";
}

TEST_F(ChangedFilesTest, NorByARollback) {
  const std::string path = WriteBundle(folder_ / "a", "a");
  ASSERT_TRUE(Start({.bundle = path, .keep_previous = false}).ok());
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  loader_->during_load = [&] { WriteBundle(path, "c"); };
  EXPECT_EQ(Rollback().status().code(), Code::kAborted);
  EXPECT_EQ(Serving(), "b");
}

TEST_F(ChangedFilesTest, AVersionMendedUnderTheSameTimeIsTriedAgain) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "2", "broken");
  Poll();
  EXPECT_EQ(Serving(), "one");
  WriteOver(folder_ / "2" / "bundle.json", "mended");
  Poll();
  EXPECT_EQ(Serving(), "mended");
}

TEST_F(ChangedFilesTest, WithAnotherFileBesideThemAllAreTriedAgain) {
  WriteBundle(folder_ / "1", "one");
  const std::filesystem::path beside = folder_ / "catalogue";
  ASSERT_TRUE(Start({.folder = folder_.string(), .beside = beside.string()}).ok());
  WriteBundle(folder_ / "2", "broken");
  Poll();
  const int loads = counts_.loads;
  Poll();
  EXPECT_EQ(counts_.loads, loads);
  std::ofstream(beside) << "x";
  Poll();
  EXPECT_EQ(counts_.loads, loads + 1);
  WriteOver(beside, "y");
  Poll();
  EXPECT_EQ(counts_.loads, loads + 2);
}

// A poll as long as what passes until the next attempt: the newest is due at each.
TEST_F(ChangedFilesTest, OneThatCannotBeReadDoesNotHoldUpTheOneBelow) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string(), .poll_period = absl::Seconds(60)}).ok());
  WriteBundle(folder_ / "2", "two");
  WriteBundle(folder_ / "3", "busy");
  clock_->Advance(absl::Seconds(60));
  RunAll();
  EXPECT_EQ(Serving(), "two");
  EXPECT_THAT(States(), ElementsAre("1 one standby", "2  refused", "3 two serving"));
  WriteOver(folder_ / "3" / "bundle.json", "free");
  clock_->Advance(absl::Seconds(60));
  RunAll();
  EXPECT_EQ(Serving(), "free");
}

// Two that cannot be loaded, and an operator who comes while the first is tried.
TEST_F(ChangedFilesTest, AnOperatorWaitsForOneLoadAlone) {
  WriteBundle(folder_ / "1", "one");
  const std::string chosen = WriteBundle(folder_ / "chosen", "chosen");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "2", "busy two");
  WriteBundle(folder_ / "3", "busy three");
  const int before = counts_.loads;
  std::vector<int> loads;
  loader_->during_load = [&] {
    if (counts_.loads == before + 1)
      repository_->Reload(chosen, [&](auto) { loads.push_back(counts_.loads - before); });
  };
  Poll();
  EXPECT_THAT(loads, ElementsAre(2)) << "the third's, and the chosen one's";
  EXPECT_EQ(Serving(), "chosen");
}

TEST(MayPassTest, WhatIsMarkedIsTriedAgainWhateverItsCode) {
  const absl::Time now = absl::FromUnixSeconds(1000);
  const absl::Status error = MayPass(absl::DataLossError("rank 1: model.safetensors missing"));
  EXPECT_EQ(error.code(), Code::kDataLoss);
  EXPECT_EQ(RetryAt(error, now, absl::Seconds(30)), now + absl::Seconds(30));
  EXPECT_EQ(RetryAt(error, now, absl::Seconds(30), 3), now + absl::Seconds(120)) << "ever later";
  EXPECT_EQ(RetryAt(error, now, absl::Seconds(30), 1000), now + absl::Seconds(960));
  EXPECT_EQ(RetryAt(absl::UnavailableError("disk"), now, absl::Seconds(30), 3), now + absl::Seconds(30));
  EXPECT_TRUE(MayPass(absl::OkStatus()).ok());
}

}  // namespace
}  // namespace beamline::repository
