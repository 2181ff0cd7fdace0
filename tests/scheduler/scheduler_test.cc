// SPDX-License-Identifier: Apache-2.0
//
// The mechanism without threads: every decision is one Step, the executor moves the fake clock.
#include "scheduler/scheduler.h"

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "beamline/retry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/stepped_scheduler.h"
#include "scheduler/test_time.h"

namespace beamline::scheduler {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class SchedulerTest : public SteppedScheduler {};

TEST_F(SchedulerTest, EncodesThenDecodesInOneBatchEach) {
  Start();
  Submit("a");
  Submit("b");
  RunAll();
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("a", "b")));
  EXPECT_THAT(Batches(false), ElementsAre(ElementsAre("a", "b")));
  EXPECT_EQ(Ended("a"), Code::kOk);
  EXPECT_EQ(Ended("b"), Code::kOk);
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_EQ(stats.completed, 2u);
  EXPECT_EQ(stats.in_flight, 0);
  EXPECT_EQ(stats.queued, 0);
  EXPECT_EQ(stats.executing, 0);
  EXPECT_EQ(stats.decode_rows, 16u);
  EXPECT_EQ(executor_.executed_late.load(), 0);
}

TEST_F(SchedulerTest, OnAnIdleDeviceNobodyWaitsButForCompany) {
  Start();
  const absl::Time start = clock_.Now();
  Submit("alone");
  RunAll();
  EXPECT_EQ(clock_.Now(), start + 10 * kMs) << "4 ms encode, three steps of 2 ms";
  const auto pair = [] { return std::make_shared<Company>(2); };
  const auto of_a = pair(), of_c = pair(), of_d = pair(), of_e = pair();
  SubmitOf(of_a, "a");
  clock_.Advance(kMs);
  EXPECT_EQ(scheduler_->Step(), clock_.Now() + kMs) << "the queue delay of a";
  Submit("other");
  EXPECT_EQ(scheduler_->Step(), clock_.Now() + kMs) << "whoever else comes is not a's company";
  SubmitOf(of_a, "b");
  RunAll();
  SubmitOf(of_c, "c");
  SubmitOf(of_c, "refused", -kMs);
  const absl::Time then = clock_.Now();
  RunAll();
  EXPECT_EQ(clock_.Now(), then + 10 * kMs) << "the other was refused";
  SubmitOf(of_d, "d");
  scheduler_->Leave(*of_d);
  RunAll();
  EXPECT_EQ(clock_.Now(), then + 20 * kMs) << "the other will not come";
  SubmitOf(of_e, "e");
  RunAll();
  EXPECT_EQ(clock_.Now(), then + 32 * kMs) << "the other did not come";
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("alone"), ElementsAre("a", "other", "b"), ElementsAre("c"),
                                         ElementsAre("d"), ElementsAre("e")));
}

TEST_F(SchedulerTest, ACachedContextSkipsEncode) {
  Start();
  auto job = Make("hit");
  job->cached = true;
  scheduler_->Submit(std::move(job));
  Submit("miss");
  RunAll();
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("miss")));
  EXPECT_THAT(Batches(false), ElementsAre(ElementsAre("hit", "miss")));
  EXPECT_THAT(shared_["hit"], ElementsAre(0, 2, 16)) << "requests of encode, of decode, rows of decode";
  EXPECT_THAT(shared_["miss"], ElementsAre(1, 2, 16));
  EXPECT_EQ(scheduler_->stats().context_hits, 1u);
  EXPECT_EQ(scheduler_->stats().context_misses, 1u);
}

TEST_F(SchedulerTest, WhoWaitsBehindCachedContextsWaitsForNoEncode) {
  Start(100, /*max_requests=*/1);
  const auto submit = [this](const std::string& name, bool cached, absl::Duration deadline) {
    auto job = Make(name, deadline);
    job->cached = job->expects_context = cached;
    scheduler_->Submit(std::move(job));
  };
  submit("measured", false, absl::InfiniteDuration());
  RunAll();  // 4 ms encode, 6 ms decode
  for (const char* name : {"a", "b", "c", "d"}) submit(name, true, 100 * kMs);
  const QueuedJob asked{.deadline = clock_.Now() + absl::Seconds(2), .rows = 8, .context_tokens = 100};
  EXPECT_EQ(scheduler_->Ask(asked).wait, 4 * 6 * kMs);
  submit("tight", true, 36 * kMs);
  EXPECT_EQ(Ended("tight"), Code::kUnknown) << "most urgent, so it waits for nobody";
  submit("late", true, 101 * kMs);
  EXPECT_EQ(Ended("late"), Code::kUnknown) << "36 ms, and a fifth of 30 as a margin";
  RunAll();
  for (const auto& [name, status] : ended_) EXPECT_TRUE(status.ok()) << name << ": " << status;
  EXPECT_EQ(Batches(true).size(), 1u);
}

TEST_F(SchedulerTest, AFailureIsTheJobsOwn) {
  Start();
  auto bad_encode = Make("bad_encode"), bad_decode = Make("bad_decode");
  bad_encode->encode_status = absl::InternalError("encode broke");
  bad_decode->decode_status = absl::InternalError("non_finite_logits");
  scheduler_->Submit(std::move(bad_encode));
  Submit("good");
  scheduler_->Submit(std::move(bad_decode));
  RunAll();
  EXPECT_EQ(ended_["bad_encode"], absl::InternalError("encode broke"));
  EXPECT_EQ(ended_["bad_decode"], absl::InternalError("non_finite_logits"));
  EXPECT_EQ(Ended("good"), Code::kOk);
  EXPECT_THAT(Batches(false), ElementsAre(ElementsAre("good", "bad_decode")));
  EXPECT_EQ(scheduler_->stats().failed, 2u);
}

TEST_F(SchedulerTest, MemoryThatRunsOutInABatchIsAFailureAndNoRefusal) {
  Start();
  auto job = Make("exhausted");
  job->decode_status = absl::ResourceExhaustedError("no more of it");
  scheduler_->Submit(std::move(job));
  RunAll();
  EXPECT_EQ(scheduler_->stats().accepted, 1u);
  EXPECT_EQ(scheduler_->stats().failed, 1u);
  EXPECT_EQ(scheduler_->stats().pushed_out, 0u);
}

TEST_F(SchedulerTest, CountsBrokenBatchesUntilADecodeSucceeds) {
  Start();
  const auto run = [&](const std::string& name, absl::Status encode, absl::Status decode) {
    auto job = Make(name);
    job->encode_status = std::move(encode);
    job->decode_status = std::move(decode);
    scheduler_->Submit(std::move(job));
    RunAll();
    return scheduler_->stats().broken_batches;
  };
  const absl::Status broken = absl::InternalError("broken");
  EXPECT_EQ(run("encode", broken, {}), 1u);
  EXPECT_EQ(run("decode", {}, broken), 2u) << "a good encode proves little";
  EXPECT_EQ(run("memory", {}, absl::ResourceExhaustedError("memory")), 3u);
  EXPECT_EQ(run("good", {}, {}), 0u);
  auto bad = Make("bad"), neighbour = Make("neighbour");
  bad->decode_status = broken;
  scheduler_->Submit(std::move(bad));
  scheduler_->Submit(std::move(neighbour));
  RunAll();
  EXPECT_EQ(scheduler_->stats().broken_batches, 0u) << "one of two failed";
  EXPECT_EQ(run("cancelled", {}, absl::CancelledError()), 0u) << "the caller's doing";
  EXPECT_EQ(run("broken again", {}, broken), 1u);
  EXPECT_EQ(run("cancelled again", {}, absl::CancelledError()), 1u) << "no sign that the device works";
}

TEST_F(SchedulerTest, SaysSinceWhenNoBatchHasGivenAnAnswer) {
  Start();
  EXPECT_EQ(scheduler_->stats().unanswered_since, absl::InfiniteFuture());
  const auto run = [&](const std::string& name, absl::Status decode) {
    auto job = Make(name);
    job->decode_status = std::move(decode);
    scheduler_->Submit(std::move(job));
    RunAll();
    clock_.Advance(absl::Seconds(1));
    return scheduler_->stats().unanswered_since;
  };
  EXPECT_EQ(run("good", {}), absl::InfiniteFuture());
  const absl::Time first = run("gave up", absl::CancelledError());
  EXPECT_LT(first, clock_.Now());
  EXPECT_EQ(run("gave up, too", absl::DeadlineExceededError("")), first);
  EXPECT_EQ(run("good again", {}), absl::InfiniteFuture());
}

TEST_F(SchedulerTest, RefusesInsideSubmit) {
  Start(2);
  Submit("late", absl::ZeroDuration());
  EXPECT_EQ(Ended("late"), Code::kDeadlineExceeded);
  Submit("a");
  Submit("b");
  Submit("c");
  EXPECT_EQ(Ended("c"), Code::kResourceExhausted);
  EXPECT_TRUE(GetRetryAfter(ended_["c"]).has_value());
  RunAll();
  EXPECT_EQ(Ended("a"), Code::kOk);
  EXPECT_EQ(Ended("b"), Code::kOk);
  EXPECT_EQ(scheduler_->stats().rejected, 2u);
  EXPECT_EQ(scheduler_->stats().accepted, 2u);
}

TEST_F(SchedulerTest, AFullQueueMakesRoomForAHigherPriority) {
  Start(3);
  auto low = Make("low"), lower_later = Make("low_later"), high = Make("high");
  low->priority = lower_later->priority = Priority::kSheddable;
  high->priority = Priority::kCritical;
  scheduler_->Submit(std::move(low));
  scheduler_->Submit(std::move(lower_later));
  Submit("default");
  scheduler_->Submit(std::move(high));
  EXPECT_THAT(ended_, IsEmpty()) << "not inside somebody else's Submit";
  RunAll();
  EXPECT_EQ(Ended("low_later"), Code::kResourceExhausted);
  EXPECT_EQ(GetRefusalReason(ended_["low_later"]), kPushedOut);
  EXPECT_EQ(Ended("low"), Code::kOk);
  EXPECT_EQ(Ended("high"), Code::kOk);
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("high", "default", "low")));
  EXPECT_EQ(scheduler_->stats().pushed_out, 1u);
  EXPECT_EQ(scheduler_->stats().in_flight, 0);
}

TEST_F(SchedulerTest, ADeadlineInTheQueueEndsTheJobUnexecuted) {
  Start(100, 1);
  Submit("first");
  Submit("second", 5 * kMs);  // behind 10 ms of work that nothing has measured yet
  auto critical = Make("critical");
  critical->priority = Priority::kCritical;
  scheduler_->Submit(std::move(critical));
  RunAll();
  EXPECT_EQ(Ended("second"), Code::kDeadlineExceeded);
  EXPECT_EQ(Ended("first"), Code::kOk);
  EXPECT_EQ(steps_["second"], 0);
  for (const auto& names : Batches(false)) EXPECT_THAT(names, ::testing::Not(::testing::Contains("second")));
  EXPECT_EQ(executor_.executed_late.load(), 0);
}

TEST_F(SchedulerTest, ADeadlineBetweenStepsStopsTheJobAndNotItsNeighbour) {
  Start();
  Submit("a", 5 * kMs);
  Submit("b");
  RunAll();
  EXPECT_EQ(Ended("a"), Code::kDeadlineExceeded);
  EXPECT_EQ(steps_["a"], 1) << "4 ms encode, one step of 2 ms";
  EXPECT_EQ(Ended("b"), Code::kOk);
  EXPECT_EQ(executor_.executed_late.load(), 0);
}

TEST_F(SchedulerTest, AnAnswerAfterItsDeadlineIsNone) {
  Start();
  Submit("a", 9 * kMs);  // 4 + 3 * 2 = 10: dies inside the last step
  RunAll();
  EXPECT_EQ(Ended("a"), Code::kDeadlineExceeded);
  EXPECT_EQ(steps_["a"], 3);
}

TEST_F(SchedulerTest, OnceMeasuredTheImpossibleIsRefusedAndTheHopelessDropped) {
  Start();
  Submit("teacher");
  RunAll();
  ASSERT_EQ(Ended("teacher"), Code::kOk);
  Submit("impossible", 9 * kMs);
  EXPECT_EQ(Ended("impossible"), Code::kResourceExhausted);
  EXPECT_THAT(std::string(ended_["impossible"].message()), HasSubstr("about 10ms"));
  Submit("possible", 11 * kMs);
  clock_.Advance(2 * kMs);  // nobody stepped: now 9 ms are left for 10 ms of work
  scheduler_->Step();
  EXPECT_EQ(Ended("possible"), Code::kDeadlineExceeded);
  EXPECT_THAT(std::string(ended_["possible"].message()), HasSubstr("2ms of the 11ms it had when it was queued"));
  EXPECT_EQ(steps_["possible"], 0);
  clock_.Advance(absl::Seconds(2));
  Submit("probe", 9 * kMs);
  EXPECT_FALSE(ended_.contains("probe")) << "a stale table lets one try";
}

TEST_F(SchedulerTest, WithoutAdmissionNoEstimateEndsAJob) {
  Start(100, 4, false);
  Submit("teacher");
  RunAll();
  Submit("hopeless", 9 * kMs);
  clock_.Advance(8 * kMs);
  scheduler_->Step();
  EXPECT_FALSE(ended_.contains("hopeless")) << "encoded, for the 10 ms of work had 9 ms";
  RunAll();
  EXPECT_EQ(Ended("hopeless"), Code::kDeadlineExceeded);
  EXPECT_THAT(Batches(true), Contains(ElementsAre("hopeless")));
}

// 4 ms and 6 ms for one request or four, as the fake executor takes.
const std::vector<BatchCost> kBaseline = {{WorkKind::kEncode, {1, 8, 100}, 4 * kMs},
                                          {WorkKind::kDecode, {1, 8, 100}, 6 * kMs},
                                          {WorkKind::kEncode, {4, 32, 400}, 4 * kMs},
                                          {WorkKind::kDecode, {4, 32, 400}, 6 * kMs}};

TEST_F(SchedulerTest, WithABaselineTheFirstBurstIsNoSurprise) {
  Start(100, 1);
  scheduler_->SetBaseline(kBaseline);
  for (int i = 0; i < 10; ++i) Submit(std::to_string(i), 35 * kMs);  // 10 ms each
  EXPECT_THAT(ended_, SizeIs(7));
  for (int i = 3; i < 10; ++i) {
    EXPECT_EQ(Ended(std::to_string(i)), Code::kResourceExhausted);
    EXPECT_TRUE(GetRetryAfter(ended_[std::to_string(i)]).has_value());
  }
  RunAll();
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Ended(std::to_string(i)), Code::kOk) << i;
  EXPECT_EQ(executor_.executed_late.load(), 0);
}

TEST_F(SchedulerTest, AFailedEncodeTeachesNoCost) {
  Start(100, 1);
  scheduler_->SetBaseline(kBaseline);
  executor_.encode_cost = [](int64_t, int64_t, int64_t) { return absl::Microseconds(1); };
  auto broken = Make("broken", absl::Seconds(1));
  broken->encode_status = absl::InternalError("broken");
  scheduler_->Submit(std::move(broken));
  RunAll();
  EXPECT_EQ(Ended("broken"), Code::kInternal);
  Submit("ahead");
  EXPECT_EQ(scheduler_->Ask({.deadline = absl::InfiniteFuture(), .rows = 8, .context_tokens = 100}).wait, 10 * kMs);
  RunAll();
}

TEST_F(SchedulerTest, ABaselineThatIsTooHighRefusesNotForGood) {
  Start(100, 1);
  std::vector<BatchCost> slow = kBaseline;
  for (BatchCost& cost : slow) cost.duration *= 1000;
  scheduler_->SetBaseline(slow);
  Submit("probe", 15 * kMs);
  Submit("behind", 30 * kMs);
  EXPECT_EQ(Ended("behind"), Code::kResourceExhausted) << "one probe is enough";
  const absl::Time again = scheduler_->Step();
  EXPECT_EQ(again, clock_.Now()) << "no queue delay, no drop by what the table says";
  RunAll();
  EXPECT_EQ(Ended("probe"), Code::kOk);
  Submit("next", 15 * kMs);
  RunAll();
  EXPECT_EQ(Ended("next"), Code::kOk);
  clock_.Advance(absl::Seconds(2));
  for (const char* name : {"first", "second"}) Submit(name, 40 * kMs);
  RunAll();
  EXPECT_EQ(Ended("second"), Code::kOk) << "nor when all else is forgotten";
}

TEST_F(SchedulerTest, AnOldVersionsBatchesSayNothingOfTheNextOnesBaseline) {
  Start();
  scheduler_->SetBaseline({{WorkKind::kDecode, {1, 8, 100}, absl::Seconds(1)}}, 7);
  Submit("old");
  RunAll();
  clock_.Advance(absl::Seconds(2));
  Submit("ahead");
  EXPECT_EQ(scheduler_->Ask({.rows = 8, .context_tokens = 100}).wait, absl::Seconds(1));
}

TEST_F(SchedulerTest, ABatchOfWhichJobsDiedSaysNothingOfABaseline) {
  Start();
  scheduler_->SetBaseline({{{WorkKind::kDecode, {2, 16, 200}, 60 * kMs}}});
  const auto wait_behind_two = [this](bool one_dies) {
    clock_.Advance(absl::Seconds(20));  // all else is forgotten
    const Scheduler::JobId first = Submit("a");
    Submit("b");
    const absl::Duration wait = scheduler_->Ask({.rows = 8, .context_tokens = 100}).wait;
    executor_.before_step = [this, first, one_dies](int step) {
      if (step == 1 && one_dies) scheduler_->Cancel(first);
    };
    RunAll();
    ended_.clear();
    return wait;
  };
  wait_behind_two(true);
  EXPECT_EQ(wait_behind_two(false), 60 * kMs);
  EXPECT_LT(wait_behind_two(false), 20 * kMs);
}

// Found on a busy machine: one batch that another process kept from its CPU, and the idle engine refused for a second.
TEST_F(SchedulerTest, ASlowBatchDoesNotMakeAnIdleEngineRefuse) {
  Start(100, 1);
  scheduler_->SetBaseline(kBaseline);
  bool stalls = true;
  executor_.before_step = [&](int) {
    if (std::exchange(stalls, false)) clock_.Advance(absl::Seconds(1));
  };
  Submit("slow");
  RunAll();
  Submit("next", 30 * kMs);
  RunAll();
  EXPECT_EQ(Ended("next"), Code::kOk);
  Submit("impossible", 9 * kMs);
  EXPECT_EQ(Ended("impossible"), Code::kResourceExhausted) << "at once";
}

TEST_F(SchedulerTest, AnOverdueBatchRefusesWhatItWouldKeepWaiting) {
  Start(100, 1);
  Submit("teacher");
  RunAll();
  Submit("long");
  bool stalls = true;
  executor_.before_step = [&](int step) {
    if (step != 1 || !std::exchange(stalls, false)) return;
    clock_.Advance(50 * kMs);  // the device stalls: 46 ms overdue
    Submit("behind", 40 * kMs);
    Submit("patient", 90 * kMs);
  };
  RunAll();
  EXPECT_EQ(Ended("behind"), Code::kResourceExhausted);
  EXPECT_EQ(Ended("patient"), Code::kOk);
}

TEST_F(SchedulerTest, AskSaysWhatSubmitWouldDoAndChangesNothing) {
  Start(100, 1);
  scheduler_->SetBaseline(kBaseline);
  const auto ask = [&](absl::Duration deadline) {
    return scheduler_->Ask({.deadline = clock_.Now() + deadline, .rows = 8, .context_tokens = 100});
  };
  EXPECT_TRUE(ask(kMs).status.ok()) << "it would be a probe";
  Submit("a", 25 * kMs);
  Submit("b", 25 * kMs);
  EXPECT_EQ(ask(100 * kMs).wait, 20 * kMs);
  EXPECT_TRUE(ask(35 * kMs).status.ok()) << "30 ms, and a fifth of the wait for luck";
  EXPECT_EQ(ask(33 * kMs).status.code(), Code::kResourceExhausted);
  EXPECT_EQ(ask(absl::ZeroDuration()).status.code(), Code::kDeadlineExceeded);
  const SchedulerStats stats = scheduler_->stats();
  EXPECT_EQ(stats.rejected, 0u);
  EXPECT_EQ(stats.queued, 2);
  RunAll();
}

// No gap between one batch and the next: 16 at once, one to a batch, take sixteen times one.
TEST_F(SchedulerTest, SinglesRunOneAfterAnotherWithoutAGap) {
  Start(100, 1);
  const absl::Time begin = clock_.Now();
  std::vector<absl::Duration> ends;
  for (int i = 0; i < 16; ++i) {
    auto job = Make(std::to_string(i), absl::Seconds(2));
    job->done = [&](absl::Status status, Job&) {
      EXPECT_TRUE(status.ok()) << status;
      ends.push_back(clock_.Now() - begin);
    };
    scheduler_->Submit(std::move(job));
  }
  RunAll();
  ASSERT_THAT(ends, SizeIs(16));
  for (int i = 0; i < 16; ++i) EXPECT_EQ(ends[i], (i + 1) * 10 * kMs) << "a request ends before the next is begun";
}

// A remote caller's deadline comes as a cancel, a little before our own: admission must learn from it all the same.
TEST_F(SchedulerTest, WhoCancelsAsHisTimeRunsOutHasExpired) {
  Start(100, 1);
  scheduler_->SetBaseline(kBaseline);
  const auto cancelled_after = [&](const std::string& name, absl::Duration deadline, absl::Duration after) {
    const Scheduler::JobId id = Submit(name, deadline);
    clock_.Advance(after);
    scheduler_->Cancel(id);
    clock_.Advance(3 * kMs);
    scheduler_->Cancel(id);  // the first one counts
    RunAll();
    return Ended(name);
  };
  EXPECT_EQ(cancelled_after("changed his mind", 100 * kMs, 94 * kMs), Code::kCancelled);
  EXPECT_EQ(cancelled_after("had forever", absl::InfiniteDuration(), absl::Hours(1)), Code::kCancelled);
  EXPECT_EQ(scheduler_->stats().cancelled, 2u);
  for (int i = 0; i < 20; ++i) {
    EXPECT_EQ(cancelled_after(std::to_string(i), 100 * kMs, 96 * kMs), Code::kDeadlineExceeded);
  }
  EXPECT_EQ(scheduler_->stats().expired, 20u);
  Submit("a", 30 * kMs);
  Submit("b", 30 * kMs);
  const auto ask = [&](absl::Duration deadline) {
    return scheduler_->Ask({.deadline = clock_.Now() + deadline, .rows = 8, .context_tokens = 100}).status.code();
  };
  EXPECT_EQ(ask(35 * kMs), Code::kResourceExhausted) << "30 ms, and more than a fifth of the wait by now";
  EXPECT_EQ(ask(45 * kMs), Code::kOk);
  RunAll();
}

TEST_F(SchedulerTest, CancelsInTheQueueBetweenStagesAndBetweenSteps) {
  Start();
  const auto queued = Submit("queued"), stepping = Submit("stepping"), kept = Submit("kept");
  scheduler_->Cancel(queued);
  scheduler_->Cancel(queued);
  executor_.before_step = [&](int step) {
    if (step == 1) scheduler_->Cancel(stepping);
  };
  RunAll();
  EXPECT_EQ(Ended("queued"), Code::kCancelled);
  EXPECT_EQ(Ended("stepping"), Code::kCancelled);
  EXPECT_EQ(steps_["stepping"], 1);
  EXPECT_EQ(Ended("kept"), Code::kOk);
  EXPECT_THAT(Batches(true), ElementsAre(ElementsAre("stepping", "kept")));
  scheduler_->Cancel(kept);
  scheduler_->Cancel(12345);
  EXPECT_EQ(scheduler_->stats().cancelled, 2u);

  const auto between = Submit("between");
  clock_.Advance(2 * kMs);
  scheduler_->Step();  // encode
  ASSERT_THAT(Batches(true), SizeIs(2));
  scheduler_->Cancel(between);
  RunAll();
  EXPECT_EQ(Ended("between"), Code::kCancelled);
  EXPECT_THAT(Batches(false), SizeIs(1));
}

TEST_F(SchedulerTest, DoneMaySubmitAgain) {
  Start();
  auto first = Make("first");
  first->done = [this](absl::Status, Job&) { Submit("second"); };
  scheduler_->Submit(std::move(first));
  RunAll();
  EXPECT_EQ(Ended("second"), Code::kOk);
}

TEST_F(SchedulerTest, DrainFinishesWhatIsInFlightAndRefusesTheRest) {
  Start();
  Submit("a");
  Submit("b");
  EXPECT_TRUE(scheduler_->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(Ended("a"), Code::kOk);
  EXPECT_EQ(Ended("b"), Code::kOk);
  Submit("c");
  EXPECT_EQ(Ended("c"), Code::kUnavailable);
}

TEST_F(SchedulerTest, DrainFailsWhatItsDeadlineCutsOff) {
  Start(100, 1);
  for (const char* name : {"a", "b", "c"}) Submit(name);
  EXPECT_FALSE(scheduler_->Drain(clock_.Now() + 15 * kMs));  // 10 ms each; b's decode has begun by then
  EXPECT_EQ(Ended("a"), Code::kOk);
  EXPECT_EQ(Ended("b"), Code::kOk);
  EXPECT_EQ(Ended("c"), Code::kUnavailable);
  EXPECT_EQ(scheduler_->stats().in_flight, 0);
}

TEST_F(SchedulerTest, DestructionEndsEveryJob) {
  Start();
  for (int i = 0; i < 10; ++i) Submit(std::to_string(i));
  scheduler_.reset();
  EXPECT_THAT(ended_, SizeIs(10));
  for (const auto& [name, status] : ended_) EXPECT_TRUE(status.ok()) << name;
}

class BrokenExecutor : public FakeExecutor {
 public:
  using FakeExecutor::FakeExecutor;
  std::vector<absl::Status> Encode(absl::Span<Job* const>) override { return {}; }
};

TEST_F(SchedulerTest, AnExecutorThatBreaksItsContractFailsTheBatch) {
  BrokenExecutor broken(&clock_, &clock_);
  EXPECT_EQ(EndedOn(broken), Code::kInternal);
}

}  // namespace
}  // namespace beamline::scheduler
