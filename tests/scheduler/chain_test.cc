// SPDX-License-Identifier: Apache-2.0
//
// Encodes that a device goes on from by itself: when that is, and that what is known of a request, and of costs, is
// what it would be with the host in between.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/stepped_scheduler.h"
#include "scheduler/test_time.h"

namespace beamline::scheduler {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ChainTest : public SteppedScheduler {
 protected:
  ChainTest() { executor_.chain = true; }
  void SubmitCached(const std::string& name) {
    auto job = Make(name);
    job->cached = true;
    scheduler_->Submit(std::move(job));
  }
};

TEST_F(ChainTest, AnIdleDeviceGoesFromTheEncodeToTheDecode) {
  Start();
  for (const char* name : {"a", "b"}) {
    auto job = Make(name);
    job->done = [this, name, done = std::move(job->done)](const absl::Status& status, Job& ended) mutable {
      EXPECT_EQ(ended.encode_started, ended.submitted) << name;
      EXPECT_EQ(ended.encode_ended - ended.encode_started, 4 * kMs) << name;
      EXPECT_EQ(ended.decode_started, ended.encode_ended) << name;
      EXPECT_EQ(ended.decode_ended - ended.decode_started, 6 * kMs) << name;
      done(status, ended);
    };
    scheduler_->Submit(std::move(job));
  }
  scheduler_->Step();
  EXPECT_EQ(executor_.chained.load(), 1);
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("a", "b")));
  EXPECT_THAT(Batches(false), ElementsAre(ElementsAre("a", "b")));
  EXPECT_EQ(Ended("a"), Code::kOk);
  EXPECT_EQ(Ended("b"), Code::kOk);
  EXPECT_THAT(shared_["a"], ElementsAre(2, 2, 16));
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_EQ(stats.encode_batches, 1u);
  EXPECT_EQ(stats.encode_requests, 2u);
  EXPECT_EQ(stats.decode_batches, 1u);
  EXPECT_EQ(stats.decode_requests, 2u);
  EXPECT_EQ(stats.context_misses, 2u);
  EXPECT_EQ(stats.executing, 0);
  EXPECT_EQ(stats.next_end, absl::InfiniteFuture());
  EXPECT_EQ(executor_.executed_late.load(), 0);
}

TEST_F(ChainTest, CostsAreOfEachByItself) {
  Start();
  Submit("teacher");
  RunAll();
  Submit("impossible", 9 * kMs);
  EXPECT_EQ(Ended("impossible"), Code::kResourceExhausted);
  EXPECT_THAT(std::string(ended_["impossible"].message()), HasSubstr("about 10ms"));
  auto cached = Make("cached", 7 * kMs);  // its decode takes 6
  cached->cached = cached->expects_context = true;
  scheduler_->Submit(std::move(cached));
  RunAll();
  EXPECT_EQ(Ended("cached"), Code::kOk);
}

TEST_F(ChainTest, WhoComesMeanwhileWaitsForBothAndForNothingElse) {
  Start();
  Submit("teacher");
  RunAll();
  std::vector<absl::Duration> waits;
  executor_.spend = [&](absl::Duration cost) {
    const QueuedJob asked{.deadline = clock_.Now() + absl::Seconds(2), .rows = 8, .context_tokens = 100};
    waits.push_back(scheduler_->Ask(asked).wait);
    clock_.Advance(cost);
  };
  Submit("a");
  scheduler_->Step();
  EXPECT_EQ(executor_.chained.load(), 2);
  EXPECT_THAT(waits, ElementsAre(10 * kMs, 6 * kMs, 4 * kMs, 2 * kMs));
}

TEST_F(ChainTest, NotWhereSomethingElseCouldComeInBetween) {
  Start(100, /*max_requests=*/1);
  Submit("a");
  Submit("b");
  scheduler_->Step();
  EXPECT_EQ(executor_.chained.load(), 0) << "b waits";
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("a")));
  Submit("urgent", 100 * kMs);
  scheduler_->Step();
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("a"), ElementsAre("urgent")));
  EXPECT_EQ(executor_.chained.load(), 0) << "a waits for its decode";
  RunAll();
  EXPECT_EQ(executor_.chained.load(), 1) << "b, when all others are done";
  for (const char* name : {"a", "b", "urgent"}) EXPECT_EQ(Ended(name), Code::kOk) << name;
}

TEST_F(ChainTest, WhatIsAtHandIsNotEncoded) {
  Start();
  SubmitCached("at hand");
  Submit("new");
  RunAll();
  EXPECT_EQ(executor_.chained.load(), 1);
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("new")));
  EXPECT_THAT(Batches(false), ElementsAre(ElementsAre("at hand", "new")));
  EXPECT_THAT(shared_["at hand"], ElementsAre(0, 2, 16));
  EXPECT_THAT(shared_["new"], ElementsAre(1, 2, 16));
  SubmitCached("alone");
  RunAll();
  EXPECT_EQ(executor_.chained.load(), 1) << "there was nothing to encode";
  EXPECT_EQ(Ended("alone"), Code::kOk);
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_EQ(stats.context_hits, 2u);
  EXPECT_EQ(stats.context_misses, 1u);
  EXPECT_EQ(stats.encode_batches, 1u);
  EXPECT_EQ(stats.decode_batches, 2u);
}

TEST_F(ChainTest, AFailureIsTheJobsOwn) {
  Start();
  auto bad = Make("bad");
  bad->encode_status = absl::InvalidArgumentError("bad");
  scheduler_->Submit(std::move(bad));
  Submit("good");
  auto worse = Make("worse");
  worse->decode_status = absl::InternalError("worse");
  scheduler_->Submit(std::move(worse));
  RunAll();
  EXPECT_EQ(executor_.chained.load(), 1);
  EXPECT_EQ(Ended("bad"), Code::kInvalidArgument);
  EXPECT_EQ(Ended("good"), Code::kOk);
  EXPECT_EQ(Ended("worse"), Code::kInternal);
  EXPECT_EQ(scheduler_->stats().broken_batches, 0u);
}

TEST_F(ChainTest, ABatchThatFailsIsOneBrokenOneAndTeachesNoCost) {
  Start();
  Submit("teacher");
  RunAll();
  executor_.encode_cost = [](int64_t, int64_t, int64_t) { return absl::ZeroDuration(); };
  auto bad = Make("bad");
  bad->encode_status = absl::InternalError("bad");
  scheduler_->Submit(std::move(bad));
  RunAll();
  EXPECT_EQ(Ended("bad"), Code::kInternal);
  EXPECT_EQ(scheduler_->stats().broken_batches, 1u);
  Submit("impossible", 9 * kMs);
  EXPECT_EQ(Ended("impossible"), Code::kResourceExhausted) << "4 and 6 ms, as before";
}

TEST_F(ChainTest, WhoeverCancelsIsNotDecoded) {
  Start();
  const Scheduler::JobId id = Submit("a");
  Submit("b");
  executor_.before_step = [&](int step) {
    if (step == 1) scheduler_->Cancel(id);
  };
  RunAll();
  EXPECT_EQ(Ended("a"), Code::kCancelled);
  EXPECT_EQ(steps_["a"], 1);
  EXPECT_EQ(Ended("b"), Code::kOk);
}

class ShortExecutor : public FakeExecutor {
 public:
  using FakeExecutor::FakeExecutor;
  Chained EncodeAndDecode(absl::Span<Job* const>, StepGate) override { return {.statuses = {}, .decode = kMs}; }
};

TEST_F(ChainTest, AnExecutorThatBreaksItsContractFailsTheBatch) {
  ShortExecutor broken(&clock_, &clock_);
  broken.chain = true;
  EXPECT_EQ(EndedOn(broken), Code::kInternal);
}

}  // namespace
}  // namespace beamline::scheduler
