// SPDX-License-Identifier: Apache-2.0
//
// The ranks of a group multiply as rank 0 has measured, whatever they measure or have kept. (What a backend then does:
// tests/backend/cuda/algorithms_test.cc.)
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/time/time.h"
#include "backend/aten/aten_backend.h"
#include "backend/communicator.h"
#include "parallel/group_fixture.h"
#include "runtime/group_follower.h"
#include "runtime/group_leader.h"
#include "runtime/runner.h"
#include "runtime/tiny_bundle.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

// As a device of that name, on which `measured` was.
class MeasuringBackend final : public backend::AtenBackend {
 public:
  explicit MeasuringBackend(std::string device)
      : AtenBackend(backend::Fp8Products::kNone), device_(std::move(device)) {}
  std::string TuningName() const override { return device_; }
  std::string ExportTuning() const override { return measured; }
  absl::Status AdoptTuning(absl::string_view text) const override {
    adopted.emplace_back(text);
    return text == "bad" ? absl::InvalidArgumentError("line 1 is none") : absl::OkStatus();
  }
  std::string measured;
  mutable std::vector<std::string> adopted;  // by one thread

 private:
  const std::string device_;
};

class GroupTuningTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto manifest = testing::WriteTinyBundle(options_.bundle);
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    leader_.backend = &first_;
  }
  void TearDown() override {
    if (following_.joinable()) following_.join();
    fs::remove_all(options_.bundle);
  }
  void Follow(const MeasuringBackend& backend) {
    following_ = std::thread([this, &backend] {
      backend::Context ctx;
      ctx.backend = &backend;
      auto group =
          parallel::ProcessGroup::Join(parallel::testing::OptionsOf(1, 2, port_), GroupSettings(options_, ctx));
      if (!group.ok()) {
        followed_ = group.status();
        return;
      }
      const auto communicator = backend::MakeTcpCommunicator(group->get());
      ctx.communicator = communicator.get();
      followed_ = GroupFollower(options_, ctx, group->get()).Run();
    });
  }
  absl::StatusOr<std::shared_ptr<GroupLeader>> Lead(absl::Duration start_timeout = absl::Seconds(30)) {
    ParallelOptions parallel = parallel::testing::OptionsOf(0, 2, port_);
    parallel.start_timeout = start_timeout;
    return GroupLeader::Start(options_, leader_, parallel);
  }
  absl::StatusOr<std::unique_ptr<Runner>> Load(std::shared_ptr<GroupLeader> leader) const {
    RunnerOptions options = options_;
    options.group = std::move(leader);
    return LoadRunner(options);
  }

  const RunnerOptions options_{.bundle = (fs::path(::testing::TempDir()) / "group_tuning_test").string(), .threads = 1};
  const int port_ = parallel::testing::FreePort();
  MeasuringBackend first_{"card"}, second_{"card"};
  backend::Context leader_;
  std::thread following_;
  absl::Status followed_;  // once that thread has ended
};

TEST_F(GroupTuningTest, GoesToTheOthersWhenItIsNew) {
  Follow(second_);
  {
    first_.measured = "kept";
    auto leader = Lead();
    ASSERT_TRUE(leader.ok()) << leader.status();
    const auto runner = Load(*leader);
    ASSERT_TRUE(runner.ok()) << runner.status();
    first_.measured = "kept and measured";
    EXPECT_TRUE((*runner)->WarmUp({}, ScoreRule::kFull).ok());
    EXPECT_TRUE((*runner)->WarmUp({}, ScoreRule::kFull).ok());
    EXPECT_TRUE(Load(*leader).ok());
  }
  following_.join();
  EXPECT_TRUE(followed_.ok()) << followed_;
  EXPECT_THAT(second_.adopted, ElementsAre("kept", "kept and measured"));
}

TEST_F(GroupTuningTest, WhatAnotherRankDoesNotTakeEndsTheGroup) {
  Follow(second_);
  {
    first_.measured = "bad";
    auto leader = Lead();
    ASSERT_TRUE(leader.ok()) << leader.status();
    const auto runner = Load(*leader);
    EXPECT_FALSE(runner.ok() && (*runner)->WarmUp({}, ScoreRule::kFull).ok());
  }
  following_.join();
  EXPECT_THAT(followed_.message(), ::testing::HasSubstr("line 1 is none"));
}

TEST_F(GroupTuningTest, DevicesThatDifferAreNoGroup) {
  const MeasuringBackend other("another card");
  Follow(other);
  const auto leader = Lead(absl::Seconds(2));
  EXPECT_THAT(leader.status().message(), ::testing::HasSubstr("another card"));
}

}  // namespace
}  // namespace beamline::runtime
