// SPDX-License-Identifier: Apache-2.0
//
// A batch that is encoded and decoded without the host in between: the answers are those of two batches, and the device
// has all of it before the host waits for anything.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/cuda_runner.h"

namespace beamline::runtime {
namespace {

using Jobs = std::vector<std::unique_ptr<RequestJob>>;

class ChainTest : public testing::CudaRunnerTest {
 protected:
  void TearDown() override {
    emulator::while_waiting = nullptr;
    CudaRunnerTest::TearDown();
  }
  Jobs MakeJobs(const std::vector<std::string>& users) const {
    Jobs jobs;
    for (const std::string& user : users) jobs.push_back(MakeJob(user));
    return jobs;
  }
  static std::vector<scheduler::Job*> Pointers(const Jobs& jobs) {
    std::vector<scheduler::Job*> pointers;
    for (const auto& job : jobs) pointers.push_back(job.get());
    return pointers;
  }
  static absl::Status Live(const scheduler::Job&) { return absl::OkStatus(); }
  scheduler::BatchExecutor::Chained Chain(const Jobs& jobs) {
    auto chained = runner_->EncodeAndDecode(Pointers(jobs), Live);
    EXPECT_EQ(chained.statuses.size(), jobs.size());
    return chained;
  }
  void ExpectSameAnswers(const Jobs& one, const Jobs& other) {
    for (size_t i = 0; i < one.size(); ++i) {
      ASSERT_FALSE(one[i]->hypotheses.empty());
      ASSERT_EQ(one[i]->hypotheses.size(), other[i]->hypotheses.size());
      for (size_t rank = 0; rank < one[i]->hypotheses.size(); ++rank) {
        EXPECT_EQ(one[i]->hypotheses[rank].sid, other[i]->hypotheses[rank].sid) << i << ", rank " << rank;
        EXPECT_EQ(one[i]->hypotheses[rank].log_probs, other[i]->hypotheses[rank].log_probs) << i << ", rank " << rank;
      }
    }
  }
};

TEST_F(ChainTest, GivesTheAnswersOfTwoBatches) {
  ASSERT_TRUE(runner_->chains());
  const Jobs apart = MakeJobs({"d", "e", "f"});
  for (const absl::Status& status : runner_->Encode(Pointers(apart))) ASSERT_TRUE(status.ok()) << status;
  for (const absl::Status& status : runner_->Decode(Pointers(apart), Live)) ASSERT_TRUE(status.ok()) << status;
  for (int round = 0; round < 3; ++round) {  // by ops, captured, from the graphs
    const Jobs chained = MakeJobs({absl::StrCat("g", round), absl::StrCat("h", round), absl::StrCat("i", round)});
    for (const absl::Status& status : Chain(chained).statuses) ASSERT_TRUE(status.ok()) << status;
    ExpectSameAnswers(chained, apart);
  }
}

TEST_F(ChainTest, AllOfItIsWithTheDeviceBeforeTheHostWaits) {
  ASSERT_TRUE(Chain(MakeJobs({"d"})).statuses[0].ok());
  const int64_t graphs = runner_->GetDevicePasses()->graph;
  const int waits = emulator::waits;
  std::optional<int64_t> at_first_wait;
  emulator::while_waiting = [&] {
    if (!at_first_wait) at_first_wait = runner_->GetDevicePasses()->graph - graphs;
  };
  const auto chained = Chain(MakeJobs({"e"}));
  EXPECT_TRUE(chained.statuses[0].ok()) << chained.statuses[0];
  EXPECT_EQ(at_first_wait, 2) << "an encode and a search";
  EXPECT_GT(runner_->GetDevicePasses()->kernel_nodes, 0);
  EXPECT_EQ(runner_->GetDevicePasses()->other_nodes, 0) << "nor do the graphs copy or wait";
  EXPECT_EQ(emulator::waits, waits + 2) << "for the beams, and the end of what is done by then";
}

TEST_F(ChainTest, TellsTheDecodesPartOfTheTime) {
  const Jobs jobs = MakeJobs({"d", "e", "f"});  // so many are run by ops, which take time here
  emulator::product_ms = 1;
  const double before = emulator::clock_ms;
  const auto chained = Chain(jobs);
  const absl::Duration all = absl::Milliseconds(emulator::clock_ms - before);
  emulator::product_ms = 0;
  EXPECT_GT(chained.decode, all / 10);
  EXPECT_LT(chained.decode, all * 9 / 10);
}

TEST_F(ChainTest, ContextsAreAtHandLaterAndWhatIsAtHandIsUsed) {
  const Jobs jobs = MakeJobs({"new", "a"});
  ASSERT_TRUE(runner_->TryAttachContext(*jobs[1]));
  for (const absl::Status& status : Chain(jobs).statuses) ASSERT_TRUE(status.ok()) << status;
  EXPECT_FALSE(jobs[0]->context_cached);
  EXPECT_TRUE(jobs[1]->context_cached);
  const Jobs again = MakeJobs({"new", "a"});
  for (const auto& job : again) ASSERT_TRUE(runner_->TryAttachContext(*job));
  for (const absl::Status& status : runner_->Decode(Pointers(again), Live)) ASSERT_TRUE(status.ok()) << status;
  ExpectSameAnswers(again, jobs);
}

TEST_F(ChainTest, WhoCannotBeSearchedForCostsNobodyElse) {
  const Jobs jobs = MakeJobs({"d", "e", "f", "g"});
  jobs[0]->snapshot = nullptr;
  jobs[1]->input.pathways[0].features.push_back(1);  // one too many
  const auto live = [&](const scheduler::Job& job) {
    return &job == jobs[2].get() ? absl::CancelledError("gone") : absl::OkStatus();
  };
  const std::vector<absl::Status> statuses = runner_->EncodeAndDecode(Pointers(jobs), live).statuses;
  EXPECT_EQ(statuses[0].code(), absl::StatusCode::kInternal) << statuses[0];
  EXPECT_FALSE(statuses[1].ok());
  EXPECT_EQ(statuses[2].code(), absl::StatusCode::kCancelled) << statuses[2];
  EXPECT_TRUE(statuses[3].ok()) << statuses[3];
  EXPECT_FALSE(jobs[3]->hypotheses.empty());
  EXPECT_FALSE(Cached("d"));
  EXPECT_TRUE(Cached("g"));
}

}  // namespace
}  // namespace beamline::runtime
