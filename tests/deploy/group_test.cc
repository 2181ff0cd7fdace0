// SPDX-License-Identifier: Apache-2.0
//
// `beamline serve` as a group of processes that hold one model: it answers as one process does, ends in order when rank
// 0 is told to, and ends within ten seconds, with errors that say why, when any of them is killed or stops.
#include <atomic>
#include <csignal>
#include <thread>

#include "deploy/real_server.h"
#include "gmock/gmock.h"
#include "parallel/group_fixture.h"

namespace beamline::deploy {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::Process;

constexpr absl::Duration kGoal = absl::Seconds(10);  // from a rank's death to the end of all others

std::string GroupBundle(const std::string& name, const runtime::testing::TinyBundleOptions& options = {}) {
  const std::string folder = absl::StrCat(::testing::TempDir(), "/group_", name);
  const auto manifest = runtime::testing::WriteTinyBundle(folder, options);
  EXPECT_TRUE(manifest.ok()) << manifest.status();
  return folder;
}

class ServedGroup {
 public:
  ServedGroup(const std::string& address, int size, const std::string& bundle, const std::string& more = "")
      : address_(address), size_(size) {
    config_ = absl::StrCat(::testing::TempDir(), "/group_", address, ".textproto");
    const std::string text = absl::StrCat(
        "listen { address: '", address, "' }\nengine { threads: 1 bundle: '", bundle, "' }\nparallel { size: ", size,
        " address: '", address, "' port: ", parallel::testing::FreePort(),
        " start_timeout_ms: 30000 lost_after_ms: 3000 }\nlifecycle { drain_delay_ms: 3000 grace_ms: 20000 }\n", more);
    EXPECT_TRUE(WriteFileAtomically(config_, text).ok());
    ranks.resize(size);
  }
  void Start(int rank, const std::vector<std::string>& more = {}) {
    std::vector<std::string> arguments{BEAMLINE_BINARY, "serve", "--config", config_, "--rank", absl::StrCat(rank)};
    arguments.insert(arguments.end(), more.begin(), more.end());
    ranks[rank] = std::make_unique<Process>(arguments);
  }
  bool StartAll() {
    for (int rank = size_ - 1; rank >= 0; --rank) Start(rank);
    const bool started = !ranks[0]->AwaitLog("server started: ").empty();
    EXPECT_TRUE(started) << ranks[0]->Log() << ranks[1]->Log();
    return started;
  }
  std::string target() const { return absl::StrCat(address_, ":50051"); }

  std::vector<std::unique_ptr<Process>> ranks;

 private:
  const std::string address_;
  const int size_;
  std::string config_;
};

std::vector<v1::RecommendResponse> AnswersOf(const std::string& target) {
  const auto stub = v1::RecommendService::NewStub(Connect(target));
  std::vector<v1::RecommendResponse> answers;
  for (const v1::RecommendRequest& request : FixedRequests()) {
    v1::RecommendResponse& response = answers.emplace_back();
    const grpc::Status status = Ask(*stub, request, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  return answers;
}

TEST(ServedGroup, AnswersAsOneProcessAndEndsInOrder) {
  const std::string bundle = GroupBundle("answers", {.moe = true});
  RealServer alone(LoopbackAddress(31), {.engine = absl::StrCat("bundle: '", bundle, "'")});
  alone.Start();
  ASSERT_TRUE(alone.AwaitReady());
  const std::vector<v1::RecommendResponse> expected = AnswersOf(alone.target());

  ServedGroup group(LoopbackAddress(32), 2, bundle);
  ASSERT_TRUE(group.StartAll());
  // A hang-up stops no rank, the first nor the second.
  group.ranks[1]->Signal(SIGHUP);
  EXPECT_NE(group.ranks[1]->AwaitLog("SIGHUP received: nothing to do"), "");
  group.ranks[1]->Signal(SIGHUP);
  const std::vector<v1::RecommendResponse> answers = AnswersOf(group.target());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(answers[i].items_size(), expected[i].items_size());
    EXPECT_EQ(answers[i].model_version(), expected[i].model_version());
    for (int k = 0; k < expected[i].items_size(); ++k) {
      EXPECT_EQ(answers[i].items(k).item_id(), expected[i].items(k).item_id()) << "request " << i << ", place " << k;
      EXPECT_NEAR(answers[i].items(k).score(), expected[i].items(k).score(), 1e-5);
    }
  }
  // All are told, as a supervisor does; rank 0 decides.
  for (const auto& rank : group.ranks) rank->Signal(SIGTERM);
  EXPECT_EQ(group.ranks[0]->Wait(), 0) << group.ranks[0]->Log();
  EXPECT_EQ(group.ranks[1]->Wait(), 0) << group.ranks[1]->Log();
  EXPECT_THAT(group.ranks[1]->Log(), AllOf(HasSubstr("loaded: rank=1 size=2"), HasSubstr("ended with its group")));
}

// Callers are at work while `signal` meets `victim`.
void ExpectTheGroupEnds(const std::string& address, int size, int victim, int signal, const std::string& reason) {
  ServedGroup group(address, size, GroupBundle(absl::StrCat("ends_", address), {.heads = 4}));
  ASSERT_TRUE(group.StartAll());
  std::atomic<bool> stop{false};
  std::thread caller([&] {
    const auto stub = v1::RecommendService::NewStub(Connect(group.target()));
    const v1::RecommendRequest request = FixedRequests()[3];
    v1::RecommendResponse response;
    while (!stop) (void)Ask(*stub, request, &response, absl::Seconds(2));
  });
  absl::SleepFor(absl::Milliseconds(200));
  group.ranks[victim]->Signal(signal);
  const absl::Time start = absl::Now();
  for (int rank = 0; rank < size; ++rank) {
    if (rank == victim) continue;
    EXPECT_EQ(group.ranks[rank]->Wait(), 1) << group.ranks[rank]->Log();
    EXPECT_LT(absl::Now() - start, kGoal) << "rank " << rank;
    EXPECT_THAT(group.ranks[rank]->Log(),
                AllOf(HasSubstr(absl::StrCat("rank ", victim, " was lost")), HasSubstr(reason)))
        << "rank " << rank;
  }
  std::printf("rank %d of %d, signal %d: all others ended within %.1f s\n", victim, size, signal,
              absl::ToDoubleSeconds(absl::Now() - start));
  stop = true;
  caller.join();
}

TEST(ServedGroup, EndsWhenAFollowerIsKilled) { ExpectTheGroupEnds(LoopbackAddress(33), 2, 1, SIGKILL, ""); }
TEST(ServedGroup, EndsWhenOneOfFourIsKilled) { ExpectTheGroupEnds(LoopbackAddress(34), 4, 2, SIGKILL, ""); }
TEST(ServedGroup, EndsWhenRankZeroIsKilled) { ExpectTheGroupEnds(LoopbackAddress(35), 2, 0, SIGKILL, ""); }
TEST(ServedGroup, EndsWhenAFollowerStops) {
  ExpectTheGroupEnds(LoopbackAddress(36), 2, 1, SIGSTOP, "parallel.lost_after_ms is 3000");
}

TEST(ServedGroup, ARankKilledBeforeAllHaveComeIsStartedAgain) {
  ServedGroup group(LoopbackAddress(41), 4, GroupBundle("again", {.heads = 4}));
  group.Start(0);
  group.Start(1);
  ASSERT_NE(group.ranks[0]->AwaitLog("a rank has come: rank=1"), "");
  group.ranks[1]->Signal(SIGKILL);
  EXPECT_NE(group.ranks[0]->AwaitLog("a rank has left before the group started; it may come again: rank=1"), "");
  for (const int rank : {1, 2, 3}) group.Start(rank);
  EXPECT_NE(group.ranks[0]->AwaitLog("server started: "), "") << group.ranks[0]->Log();
  EXPECT_EQ(AnswersOf(group.target()).size(), FixedRequests().size());
}

TEST(ServedGroup, WhatDoesNotFitIsNamedAndNothingHangs) {
  const std::string bundle = GroupBundle("fit"), other = GroupBundle("fit_other", {.seed = 3});
  {
    ServedGroup group(LoopbackAddress(37), 2, bundle, "log { format: 'json' }\n");
    group.Start(1, {"--bundle", other});
    group.Start(0);
    for (const auto& rank : group.ranks) {
      EXPECT_EQ(rank->Wait(), 2) << rank->Log();
      EXPECT_THAT(rank->Log(), HasSubstr("\"event\":\"server failed\",\"error\":\""));
    }
    EXPECT_THAT(group.ranks[0]->Log(), AllOf(HasSubstr("rank 1: engine.bundle: "), HasSubstr("has digest")));
  }
  {
    ServedGroup group(LoopbackAddress(38), 3, bundle);
    group.Start(2);
    group.Start(1);
    group.Start(0);
    for (const auto& rank : group.ranks) {
      EXPECT_EQ(rank->Wait(), 2);
      EXPECT_THAT(rank->Log(), HasSubstr("config.json: heads: 2 cannot be shared equally by parallel.size 3"));
    }
    ServedGroup outside(LoopbackAddress(39), 2, bundle);
    outside.ranks.resize(3);
    outside.Start(2);
    EXPECT_EQ(outside.ranks[2]->Wait(), 2);
    EXPECT_THAT(outside.ranks[2]->Log(), HasSubstr("--rank: 2 is outside 0..1, the ranks of parallel.size 2"));
  }
}

}  // namespace
}  // namespace beamline::deploy
