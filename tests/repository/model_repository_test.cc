// SPDX-License-Identifier: Apache-2.0
//
// The repository without threads, under a clock that stands still: what is loaded, served, kept and refused, and when.
#include "repository/model_repository.h"

#include <fstream>
#include <sstream>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_split.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "repository/repository_fixture.h"
#include "spdlog/sinks/ostream_sink.h"

namespace beamline::repository {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

TEST_F(ModelRepositoryTest, ServesTheBundleOrSaysWhyNot) {
  EXPECT_EQ(Start({.bundle = (folder_ / "absent").string()}).code(), Code::kNotFound);
  EXPECT_EQ(Start({.bundle = WriteBundle(folder_ / "x", "broken")}).code(), Code::kDataLoss);
  EXPECT_EQ(Start({.bundle = WriteBundle(folder_ / "x", "cold")}).code(), Code::kInternal);
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "x", "a")}).ok());
  EXPECT_EQ(Serving(), "a");
  EXPECT_EQ(counts_.warm_ups, 2);
  EXPECT_THAT(States(), ElementsAre("1 a serving"));
}

TEST_F(ModelRepositoryTest, ReloadSwapsAndKeepsTheLastGoodOne) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  const auto b = Reload(WriteBundle(folder_ / "b", "b"));
  ASSERT_TRUE(b.ok()) << b.status();
  EXPECT_EQ(b->model_version, "b");
  EXPECT_EQ(b->state, VersionState::kServing);
  EXPECT_EQ(Serving(), "b");
  EXPECT_THAT(States(), ElementsAre("1 a standby", "2 b serving"));
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "c", "c")).ok());
  EXPECT_THAT(States(), ElementsAre("1 a unloaded", "2 b standby", "3 c serving"));
  EXPECT_EQ(counts_.alive, 2);
  EXPECT_EQ(counts_.most_alive, 2);  // the standby goes before the next is loaded
  EXPECT_EQ(repository_->stats().served, 3u);
  EXPECT_EQ(repository_->stats().loaded, 2);
}

TEST_F(ModelRepositoryTest, WithoutAPathTheConfiguredBundleIsReadAgain) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  WriteBundle(folder_ / "a", "a2");
  ASSERT_TRUE(Reload().ok());
  EXPECT_EQ(Serving(), "a2");
}

TEST_F(ModelRepositoryTest, TheSameBundleIsNotLoadedAgain) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  const auto again = Reload(WriteBundle(folder_ / "copy", "a"));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->id, 1);
  EXPECT_EQ(counts_.loads, 1);
  EXPECT_EQ(repository_->stats().unchanged, 1u);
  // Nor is the standby: to and fro without a load.
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  ASSERT_TRUE(Reload((folder_ / "a").string()).ok());
  EXPECT_EQ(Serving(), "a");
  EXPECT_EQ(counts_.loads, 2);
  EXPECT_THAT(States(), ElementsAre("1 a serving", "2 b standby"));
}

// What is in memory is whole, but whoever names these files means to serve from them.
TEST_F(ModelRepositoryTest, ADamagedCopyOfWhatIsLoadedIsRefused) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  for (const char* content : {"a", "b"}) {
    const std::string copy = WriteBundle(folder_ / absl::StrCat("copy_", content), content);
    std::ofstream(std::filesystem::path(copy) / "damaged") << "";
    EXPECT_TRUE(absl::IsDataLoss(Reload(copy).status())) << content;
    EXPECT_EQ(Serving(), "b");
  }
  EXPECT_EQ(counts_.loads, 2);
}

TEST_F(ModelRepositoryTest, ARefusedBundleLeavesTheOldOneServing) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  EXPECT_EQ(Reload((folder_ / "absent").string()).status().code(), Code::kNotFound);
  EXPECT_EQ(Reload(WriteBundle(folder_ / "b", "broken")).status().code(), Code::kDataLoss);
  const absl::Status cold = Reload(WriteBundle(folder_ / "c", "cold")).status();
  EXPECT_EQ(cold.code(), Code::kInternal);
  EXPECT_THAT(cold.message(), HasSubstr("failed in the warm-up: non_finite_logits"));
  EXPECT_EQ(Serving(), "a");
  EXPECT_EQ(counts_.alive, 1);
  EXPECT_THAT(States(), ElementsAre("1 a serving", "2  refused", "3  refused", "4 cold refused"));
  EXPECT_THAT(repository_->versions()[2].error.message(), HasSubstr("is broken"));
  EXPECT_EQ(repository_->stats().refused, 3u);
}

TEST_F(ModelRepositoryTest, ADamagedBundleDoesNotCostTheVersionToGoBackTo) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  const std::string damaged = WriteBundle(folder_ / "c", "c");
  std::ofstream(std::filesystem::path(damaged) / "damaged") << "";
  EXPECT_TRUE(absl::IsDataLoss(Reload(damaged).status()));
  EXPECT_THAT(States(), ElementsAre("1 a standby", "2 b serving", "3  refused"));
  ASSERT_TRUE(Rollback().ok());
  EXPECT_EQ(Serving(), "a");
  EXPECT_EQ(counts_.loads, 2);
}

TEST_F(ModelRepositoryTest, AProcessThatEndsWarmsNothingUp) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  loader_->during_load = [] { SetInterrupted(true); };
  const absl::Status status = Reload(WriteBundle(folder_ / "b", "b")).status();
  SetInterrupted(false);
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_EQ(counts_.warm_ups, 1);
  EXPECT_EQ(Serving(), "a");
  EXPECT_EQ(repository_->stats().refused, 0u) << "the bundle is not to blame";
}

TEST_F(ModelRepositoryTest, RollsBackAtOnceAndThenFurther) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  EXPECT_EQ(Rollback().status().code(), Code::kFailedPrecondition);
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "c", "c")).ok());
  ASSERT_TRUE(Rollback().ok());
  EXPECT_EQ(Serving(), "b");
  EXPECT_EQ(counts_.loads, 3);  // from the standby
  EXPECT_THAT(States(), ElementsAre("1 a unloaded", "2 b serving", "3 c unloaded"));
  ASSERT_TRUE(Rollback().ok());
  EXPECT_EQ(Serving(), "a");
  EXPECT_EQ(counts_.loads, 4);
  EXPECT_EQ(counts_.alive, 1);
  EXPECT_EQ(Rollback().status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(repository_->stats().rollbacks, 2u);
}

TEST_F(ModelRepositoryTest, RollsBackToNothingElseThanWhatServed) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a"), .keep_previous = false}).ok());
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  EXPECT_THAT(States(), ElementsAre("1 a unloaded", "2 b serving"));
  WriteBundle(folder_ / "a", "something else");
  const absl::Status changed = Rollback().status();
  EXPECT_EQ(changed.code(), Code::kFailedPrecondition);
  EXPECT_THAT(changed.message(), HasSubstr("no longer what served before"));
  EXPECT_EQ(Serving(), "b");
  std::filesystem::remove_all(folder_ / "a");
  const absl::Status gone = Rollback().status();
  EXPECT_EQ(gone.code(), Code::kFailedPrecondition);
  EXPECT_THAT(gone.message(), HasSubstr("no longer what served before"));
  WriteBundle(folder_ / "a", "a");
  ASSERT_TRUE(Rollback().ok());
  EXPECT_EQ(Serving(), "a");
}

TEST_F(ModelRepositoryTest, ARollbackThatALoadOvertookDoesNotGoBackToWhatItLeaves) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  std::vector<absl::Status> answers;
  const auto note = [&](const absl::StatusOr<VersionStatus>& result) { answers.push_back(result.status()); };
  bool asks = true;
  loader_->during_load = [&] {
    if (std::exchange(asks, false)) repository_->Rollback(note);
  };
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "c", "c")).ok());
  ASSERT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers[0].code(), Code::kAborted);
  EXPECT_THAT(answers[0].message(), HasSubstr((folder_ / "c").string()));
  EXPECT_EQ(Serving(), "c");
  for (int i = 0; i < 2; ++i) repository_->Rollback(note);  // by who gave up waiting and asked again: one step
  RunAll();
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_TRUE(answers[1].ok()) << answers[1];
  EXPECT_EQ(answers[2].code(), Code::kAborted);
  EXPECT_EQ(Serving(), "b");
  asks = true;
  EXPECT_FALSE(Reload(WriteBundle(folder_ / "broken", "broken")).ok());
  ASSERT_EQ(answers.size(), 4u);
  EXPECT_TRUE(answers[3].ok()) << answers[3] << ", though nothing came between";
  EXPECT_EQ(Serving(), "a");
}

TEST_F(ModelRepositoryTest, AVersionDrainsUntilItsLastRequestEnds) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a"), .keep_previous = false}).ok());
  ModelHandle request = repository_->current();
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  EXPECT_THAT(States(), ElementsAre("1 a draining", "2 b serving"));
  EXPECT_TRUE(static_cast<const FakeModel&>(*request).usable);
  request.reset();
  EXPECT_EQ(counts_.alive, 2);  // the request's thread frees nothing
  RunAll();
  EXPECT_EQ(counts_.alive, 1);
  EXPECT_THAT(States(), ElementsAre("1 a unloaded", "2 b serving"));
}

TEST_F(ModelRepositoryTest, AHandleMayOutliveTheRepository) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  ModelHandle request = repository_->current();
  repository_.reset();
  EXPECT_TRUE(static_cast<const FakeModel&>(*request).usable);
  request.reset();
  EXPECT_EQ(counts_.alive, 0);
}

TEST_F(ModelRepositoryTest, WatchesAFolder) {
  WriteBundle(folder_ / "1", "one");
  WriteBundle(folder_ / "2", "two");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  EXPECT_EQ(Serving(), "two");
  WriteBundle(folder_ / "10", "ten");
  RunAll();
  EXPECT_EQ(Serving(), "two");  // not before its time
  Poll();
  EXPECT_EQ(Serving(), "ten");
  WriteBundle(folder_ / "9", "nine");  // leap-frogged: too late
  std::filesystem::remove_all(folder_ / "10");
  Poll();
  EXPECT_EQ(Serving(), "ten");
  EXPECT_EQ(counts_.loads, 2);
}

TEST_F(ModelRepositoryTest, AVersionThatComesTooLateIsToldOnce) {
  std::ostringstream log;
  const auto sink = std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true);
  Log().sinks().push_back(sink);
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  const auto told = [&] {
    return std::ssize(std::vector<std::string>(absl::StrSplit(log.str(), "version passed over"))) - 1;
  };
  WriteBundle(folder_ / "1", "one");
  WriteBundle(folder_ / "10", "ten");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  Poll();
  EXPECT_EQ(told(), 0);  // the old ones of a start are no news
  WriteBundle(folder_ / "9", "nine");
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_EQ(told(), 1);
  EXPECT_THAT(log.str(), AllOf(HasSubstr((folder_ / "9").string()), HasSubstr("10")));
  std::filesystem::remove_all(folder_ / "9");
  Poll();
  WriteBundle(folder_ / "9", "nine again");
  Poll();
  EXPECT_EQ(told(), 2);
  WriteBundle(folder_ / "11", "eleven");
  Poll();
  Poll();
  EXPECT_EQ(Serving(), "eleven");
  WriteBundle(folder_ / "12", "twelve");
  ASSERT_TRUE(Reload().ok());  // before the folder is looked at
  Poll();
  EXPECT_EQ(Serving(), "twelve");
  for (const bool back : {false, true}) {
    std::filesystem::rename(folder_ / (back ? "away" : "12"), folder_ / (back ? "12" : "away"));
    Poll();
  }
  EXPECT_EQ(told(), 2);
}

TEST_F(ModelRepositoryTest, ABundleUnderNoVersionsNameIsToldOnce) {
  std::ostringstream log;
  Log().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true));
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  const auto told = [&] {
    return std::ssize(std::vector<std::string>(absl::StrSplit(log.str(), "its folder has no version's name"))) - 1;
  };
  WriteBundle(folder_ / "1", "one");
  WriteBundle(folder_ / "0020", "twenty");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  for (int i = 0; i < 4; ++i) Poll();
  EXPECT_EQ(told(), 1);
  EXPECT_THAT(log.str(), AllOf(HasSubstr((folder_ / "0020").string()), HasSubstr("without leading zeros")));
  for (const char* text : {"a", "a copy", "a copy that grows"}) {
    WriteBundle(folder_ / "3.partial", text);
    Poll();
  }
  std::filesystem::rename(folder_ / "3.partial", folder_ / "3");  // as whoever publishes does
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_EQ(Serving(), "a copy that grows");
  EXPECT_EQ(told(), 1) << log.str();
  std::filesystem::remove_all(folder_ / "0020");
  Poll();
  WriteBundle(folder_ / "0020", "again");
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_EQ(told(), 2);
}

TEST_F(ModelRepositoryTest, StartsWithTheNewestVersionThatCanBeServed) {
  EXPECT_EQ(Start({.folder = folder_.string()}).code(), Code::kNotFound);
  WriteBundle(folder_ / "3", "broken");
  EXPECT_EQ(Start({.folder = folder_.string()}).code(), Code::kDataLoss);
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "spare", "spare"), .folder = folder_.string()}).ok());
  EXPECT_EQ(Serving(), "spare");
  WriteBundle(folder_ / "2", "two");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  EXPECT_EQ(Serving(), "two");
  WriteBundle(folder_ / "3", "mended by now");  // another size: the times of two writes may be one tick of the system's
  Poll();
  EXPECT_EQ(Serving(), "mended by now");
}

TEST_F(ModelRepositoryTest, ARefusedVersionIsTriedAgainOnlyWhenItChanges) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "2", "broken");
  Poll();
  const int loads = counts_.loads;
  for (int i = 0; i < 100; ++i) Poll();
  EXPECT_EQ(counts_.loads, loads);
  WriteBundle(folder_ / "2", "mended by now");
  Poll();
  EXPECT_EQ(Serving(), "mended by now");
}

TEST_F(ModelRepositoryTest, WhatTheMachineRefusedIsTriedAgainAfterAWhile) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "2", "busy");
  Poll();
  EXPECT_EQ(counts_.loads, 2);
  for (int i = 0; i < 5; ++i) Poll();  // 25 s
  EXPECT_EQ(counts_.loads, 2);
  Poll();
  EXPECT_EQ(counts_.loads, 3);
}

TEST_F(ModelRepositoryTest, ARollbackHoldsUntilSomethingNewerComes) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "2", "two");
  Poll();
  ASSERT_EQ(Serving(), "two");
  ASSERT_TRUE(Rollback().ok());
  for (int i = 0; i < 3; ++i) Poll();
  EXPECT_EQ(Serving(), "one");
  ASSERT_TRUE(Reload().ok());  // by hand, the newest again
  EXPECT_EQ(Serving(), "two");
  ASSERT_TRUE(Rollback().ok());
  WriteBundle(folder_ / "3", "three");
  Poll();
  EXPECT_EQ(Serving(), "three");
}

TEST_F(ModelRepositoryTest, AfterARollbackTheFloorIsTheNewestThatIsThere) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "20261128", "a mistake");
  Poll();
  ASSERT_EQ(Serving(), "a mistake");
  std::filesystem::remove_all(folder_ / "20261128");
  ASSERT_TRUE(Rollback().ok());
  WriteBundle(folder_ / "2", "two");
  Poll();
  EXPECT_EQ(Serving(), "two");
}

TEST_F(ModelRepositoryTest, AfterAHandsReloadToo) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "20261128", "a mistake");
  Poll();
  ASSERT_TRUE(Rollback().ok());  // what is below the mistake is older than it
  std::filesystem::remove_all(folder_ / "20261128");
  WriteBundle(folder_ / "2", "two");
  Poll();
  EXPECT_EQ(Serving(), "one");
  ASSERT_TRUE(Reload().ok());
  EXPECT_EQ(Serving(), "two");
  WriteBundle(folder_ / "3", "three");
  Poll();
  EXPECT_EQ(Serving(), "three");
}

TEST_F(ModelRepositoryTest, WhatIsPublishedAgainUnderANewNumberIsThere) {
  for (const bool keep_previous : {true, false}) {
    const std::filesystem::path folder = folder_ / (keep_previous ? "kept" : "loaded_again");
    WriteBundle(folder / "1", "a");
    ASSERT_TRUE(Start({.folder = folder.string(), .keep_previous = keep_previous}).ok());
    WriteBundle(folder / "2", "a");
    Poll();
    EXPECT_EQ(repository_->versions()[0].path, (folder / "2").string());
    std::filesystem::remove_all(folder / "1");
    for (const char* next : {"b", "c"}) {
      WriteBundle(folder / (*next == 'b' ? "3" : "4"), next);
      Poll();
      ASSERT_EQ(Serving(), next);
    }
    ASSERT_TRUE(Rollback().ok());
    const auto first = Rollback();
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(Serving(), "a");
  }
}

TEST_F(ModelRepositoryTest, AVersionThatWasAwayForAMomentIsTriedAgain) {
  WriteBundle(folder_ / "1", "one");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  WriteBundle(folder_ / "2", "two");
  loader_->during_load = [&] {
    loader_->during_load = nullptr;
    std::filesystem::rename(folder_ / "2", folder_ / ".away");
  };
  Poll();
  ASSERT_EQ(Serving(), "one");
  std::filesystem::rename(folder_ / ".away", folder_ / "2");
  for (int i = 0; i < 7; ++i) Poll();
  EXPECT_EQ(Serving(), "two");
}

TEST_F(ModelRepositoryTest, AHandsChoiceHoldsToo) {
  WriteBundle(folder_ / "1", "one");
  WriteBundle(folder_ / "2", "two");
  ASSERT_TRUE(Start({.folder = folder_.string()}).ok());
  ASSERT_TRUE(Reload((folder_ / "1").string()).ok());
  Poll();
  EXPECT_EQ(Serving(), "one");
}

TEST_F(ModelRepositoryTest, WhatIsPublishedWhileAHandsChoiceLoadsIsNewer) {
  const std::string apart = WriteBundle(folder_ / "apart", "apart");
  const std::filesystem::path versions = folder_ / "versions";
  WriteBundle(versions / "1", "one");
  ASSERT_TRUE(Start({.folder = versions.string(), .keep_previous = false}).ok());
  int published = 1;
  const auto publish = [&] {
    ++published;
    WriteBundle(versions / absl::StrCat(published), absl::StrCat("version ", published));
  };
  const auto while_it_loads = [&] {
    loader_->during_load = [&] {
      loader_->during_load = nullptr;
      publish();
    };
  };
  while_it_loads();
  ASSERT_TRUE(Reload(apart).ok());
  Poll();
  EXPECT_EQ(Serving(), "version 2");
  publish();
  while_it_loads();
  ASSERT_TRUE(Reload().ok());  // the newest there was
  Poll();
  EXPECT_EQ(Serving(), "version 4");
  while_it_loads();
  ASSERT_TRUE(Rollback().ok());
  Poll();
  EXPECT_EQ(Serving(), "version 5");
}

TEST_F(ModelRepositoryTest, AFolderThatCannotBeListedChangesNothing) {
  WriteBundle(folder_ / "versions/1", "one");
  ASSERT_TRUE(Start({.folder = (folder_ / "versions").string()}).ok());
  std::filesystem::rename(folder_ / "versions", folder_ / "away");
  Poll();
  Poll();
  EXPECT_EQ(Serving(), "one");
  EXPECT_TRUE(repository_->stats().folder_unreadable);
  EXPECT_EQ(Reload().status().code(), Code::kUnavailable);
  std::filesystem::rename(folder_ / "away", folder_ / "versions");
  WriteBundle(folder_ / "versions/2", "two");
  Poll();
  EXPECT_EQ(Serving(), "two");
  EXPECT_FALSE(repository_->stats().folder_unreadable);
}

// A mount whose disk is away is an empty folder.
TEST_F(ModelRepositoryTest, AFolderThatIsEmptyAllAtOnceChangesNothing) {
  const std::filesystem::path versions = folder_ / "versions";
  WriteBundle(versions / "1", "one");
  WriteBundle(versions / "2", "two");
  const std::string apart = WriteBundle(folder_ / "apart", "apart");
  const auto away = [&](bool is_away) {
    std::filesystem::rename(is_away ? versions : folder_ / "disk", is_away ? folder_ / "disk" : versions);
    if (is_away) std::filesystem::create_directory(versions);
  };
  std::ostringstream log;
  Log().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true));
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  ASSERT_TRUE(Start({.folder = versions.string()}).ok());
  for (const bool rollback : {false, true}) {
    away(true);
    Poll();
    EXPECT_TRUE(repository_->stats().folder_unreadable);
    ASSERT_TRUE((rollback ? Rollback() : Reload(apart)).ok());
    std::filesystem::remove(versions);
    away(false);
    Poll();
    EXPECT_FALSE(repository_->stats().folder_unreadable);
    EXPECT_EQ(Serving(), rollback ? "two" : "apart");
  }
  EXPECT_THAT(log.str(), ::testing::Not(HasSubstr("version passed over")));
  ASSERT_TRUE(Reload((versions / "1").string()).ok());
  Poll();
  EXPECT_EQ(Serving(), "one");
}

TEST_F(ModelRepositoryTest, ARollbackWhileTheFolderIsAwayHoldsOverWhatWasSeen) {
  const std::filesystem::path versions = folder_ / "versions";
  std::filesystem::create_directories(versions);
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "one", "one"), .folder = versions.string()}).ok());
  WriteBundle(versions / "2", "two");
  Poll();
  WriteBundle(versions / "3", "broken");
  Poll();
  std::filesystem::rename(versions, folder_ / "disk");
  ASSERT_TRUE(Rollback().ok());
  std::filesystem::rename(folder_ / "disk", versions);
  WriteBundle(versions / "3", "mended by now");
  Poll();
  EXPECT_EQ(Serving(), "one");
  WriteBundle(versions / "4", "four");
  Poll();
  EXPECT_EQ(Serving(), "four");
}

TEST_F(ModelRepositoryTest, AStandbyThatIsPublishedAgainServesFromThere) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  const std::string again = WriteBundle(folder_ / "again", "a");
  const auto served = Reload(again);
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ(served->path, again);
}

TEST_F(ModelRepositoryTest, ACopyThatServedForAWhileIsNotWhereTheVersionIs) {
  const std::string original = WriteBundle(folder_ / "original", "a");
  const std::string copy = WriteBundle(folder_ / "copy", "a");
  ASSERT_TRUE(Start({.bundle = original, .keep_previous = false}).ok());
  ASSERT_TRUE(Reload(copy).ok());
  std::filesystem::remove_all(copy);
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", "b")).ok());
  ASSERT_TRUE(Rollback().ok());
  EXPECT_EQ(Serving(), "a");
}

TEST_F(ModelRepositoryTest, WhatIsLoadedAgainFromElsewhereIsThereForTheVersionsBefore) {
  const std::string original = WriteBundle(folder_ / "original", "a");
  ASSERT_TRUE(Start({.bundle = original, .keep_previous = false}).ok());
  for (const char* text : {"b", "c"}) ASSERT_TRUE(Reload(WriteBundle(folder_ / text, text)).ok());
  std::filesystem::remove_all(original);
  ASSERT_TRUE(Reload(WriteBundle(folder_ / "copy", "a")).ok());
  for (const char* text : {"c", "b", "a"}) {
    const auto back = Rollback();
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(Serving(), text);
  }
}

TEST_F(ModelRepositoryTest, WaitingRequestsAreBoundedAndEndAtTheStop) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  std::vector<Code> codes;
  for (int i = 0; i < 10; ++i) {
    repository_->Reload("", [&](const auto& result) { codes.push_back(result.status().code()); });
  }
  EXPECT_THAT(codes, ElementsAre(Code::kResourceExhausted, Code::kResourceExhausted));
  repository_->Stop();
  EXPECT_EQ(codes.size(), 10u);
  EXPECT_EQ(codes.back(), Code::kUnavailable);
  repository_->Rollback([&](const auto& result) { codes.push_back(result.status().code()); });
  EXPECT_EQ(codes.back(), Code::kUnavailable);
  EXPECT_EQ(Serving(), "a");
}

TEST_F(ModelRepositoryTest, ForgetsWhatIsLongGone) {
  ASSERT_TRUE(Start({.bundle = WriteBundle(folder_ / "a", "a")}).ok());
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(Reload(WriteBundle(folder_ / "b", absl::StrCat("b", i))).ok());
  EXPECT_LE(repository_->versions().size(), 32u);
  EXPECT_EQ(repository_->versions().back().model_version, "b99");
  EXPECT_EQ(counts_.alive, 2);
}

}  // namespace
}  // namespace beamline::repository
