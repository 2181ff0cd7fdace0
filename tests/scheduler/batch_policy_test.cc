// SPDX-License-Identifier: Apache-2.0
#include "scheduler/batch_policy.h"

#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/test_time.h"

namespace beamline::scheduler {
namespace {

using Action = BatchDecision::Action;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

QueuedJob At(uint64_t id, absl::Duration waited = absl::ZeroDuration()) {
  return {.id = id, .submitted = kNow - waited, .rows = 8, .context_tokens = 100};
}

BatchDecision Decide(std::vector<QueuedJob> encode, std::vector<QueuedJob> decode, BatchLimits limits = {},
                     CostTable cost = CostTable(), bool closing = false) {
  return DecideBatch({.encode = encode, .decode = decode, .closing = closing}, kNow, cost, limits);
}

// A decode alone takes 6 ms, and four at once 12.
CostTable MostlyFixed() {
  CostTable cost;
  cost.Observe(WorkKind::kDecode, {.requests = 1, .rows = 8, .context_tokens = 100}, 6 * kMs, kNow);
  cost.Observe(WorkKind::kDecode, {.requests = 4, .rows = 32, .context_tokens = 400}, 12 * kMs, kNow);
  return cost;
}

TEST(BatchPolicyTest, NothingToDo) {
  const BatchDecision decision = Decide({}, {});
  EXPECT_EQ(decision.action, Action::kWait);
  EXPECT_EQ(decision.wait_until, absl::InfiniteFuture());
}

TEST(BatchPolicyTest, WaitsForCompanyUntilTheQueueDelay) {
  const BatchDecision decision = Decide({At(1, kMs), At(2)}, {});
  EXPECT_EQ(decision.action, Action::kWait);
  EXPECT_EQ(decision.wait_until, kNow + kMs);
  EXPECT_THAT(decision.batch, IsEmpty());
  EXPECT_THAT(Decide({At(1, 2 * kMs), At(2)}, {}).batch, ElementsAre(1, 2));
}

TEST(BatchPolicyTest, NobodyWaitsBesideAnUnusedDevice) {
  const std::vector<QueuedJob> queue = {At(1), At(2)};
  for (const bool idle : {false, true}) {
    EXPECT_EQ(DecideBatch({.encode = queue, .idle = idle}, kNow, CostTable(), {}).action,
              idle ? Action::kEncode : Action::kWait);
    EXPECT_EQ(DecideBatch({.decode = queue, .idle = idle}, kNow, CostTable(), {}).action,
              idle ? Action::kDecode : Action::kWait);
  }
}

TEST(BatchPolicyTest, TheDecodeFollowsItsEncodeWhereNothingElseWaitsOrRuns) {
  const std::vector<QueuedJob> two = {At(1, 9 * kMs), At(2, 9 * kMs)}, later = {At(3)};
  const auto decide = [](const QueueView& view, BatchLimits limits = {}) {
    return DecideBatch(view, kNow, CostTable(), limits);
  };
  EXPECT_TRUE(decide({.encode = two, .idle = true}).then_decode);
  EXPECT_FALSE(decide({.encode = two}).then_decode) << "others run";
  EXPECT_FALSE(decide({.encode = two, .idle = true}, {.max_requests = 1}).then_decode) << "others wait";
  const BatchDecision before = decide({.encode = two, .decode = later, .idle = true});
  EXPECT_EQ(before.action, Action::kEncode);
  EXPECT_FALSE(before.then_decode) << "others wait to be decoded";
  EXPECT_FALSE(decide({.decode = two, .idle = true}).then_decode) << "there is no encode";
}

TEST(BatchPolicyTest, OnAnUnusedDeviceJobsToEncodeWaitForTheirCompanyAlone) {
  std::vector<QueuedJob> queue = {At(1, kMs), At(2)};
  queue[1].awaits_company = true;
  const BatchDecision decision = DecideBatch({.encode = queue, .idle = true}, kNow, CostTable(), {});
  EXPECT_EQ(decision.action, Action::kWait);
  EXPECT_EQ(decision.wait_until, kNow + kMs);
  const BatchDecision last = DecideBatch({.encode = queue, .idle = true, .closing = true}, kNow, CostTable(), {});
  EXPECT_THAT(last.batch, ElementsAre(1, 2));
  const BatchDecision encoded = DecideBatch({.decode = queue, .idle = true}, kNow, CostTable(), {});
  EXPECT_THAT(encoded.batch, ElementsAre(1, 2)) << "company is for the first batch";
}

TEST(BatchPolicyTest, NobodyWaitsWhenNobodyElseWillCome) {
  EXPECT_THAT(Decide({At(1)}, {}, {}, CostTable(), true).batch, ElementsAre(1));
}

TEST(BatchPolicyTest, AFullBatchGoesAtOnce) {
  BatchLimits limits{.max_rows = 16, .max_context_tokens = 1000, .max_requests = 3};
  EXPECT_THAT(Decide({}, {At(1), At(2)}, limits).batch, ElementsAre(1, 2)) << "rows";
  EXPECT_THAT(Decide({At(1), At(2), At(3)}, {}, limits).batch, ElementsAre(1, 2)) << "rows of the decode that follows";
  limits = {.max_rows = 1000, .max_context_tokens = 250, .max_requests = 3};
  EXPECT_THAT(Decide({At(1), At(2)}, {}, limits).batch, IsEmpty());
  EXPECT_THAT(Decide({At(1), At(2), At(3)}, {}, limits).batch, ElementsAre(1, 2)) << "context tokens";
  EXPECT_THAT(Decide({}, {At(1), At(2)}, limits).batch, IsEmpty());
  EXPECT_THAT(Decide({}, {At(1), At(2), At(3), At(4)}, limits).batch, ElementsAre(1, 2, 3)) << "requests";
}

TEST(BatchPolicyTest, SmallerJobsFillWhatABigOneLeaves) {
  QueuedJob big = At(2);
  big.rows = 30;
  EXPECT_THAT(Decide({}, {At(1), big, At(3), At(4)}, {.max_rows = 32}).batch, ElementsAre(1, 3, 4));
  big.id = 0;
  EXPECT_THAT(Decide({}, {At(1), big, At(3)}, {.max_rows = 32}).batch, ElementsAre(0));
}

// Twice the rows of one job, or ten times, take twice as long, or ten times: nothing is gained by company.
CostTable Linear() {
  CostTable cost;
  for (int64_t n = 1; n <= 1024; n *= 2) {
    cost.Observe(WorkKind::kEncode, {n, 8 * n, 100 * n}, n * kMs, kNow);
    cost.Observe(WorkKind::kDecode, {n, 8 * n, 100 * n}, n * kMs, kNow);
  }
  return cost;
}

// The kernels compute every request of a batch at the size of its largest.
TEST(BatchPolicyTest, NarrowOnesBecomeNotWideForTheSakeOfAWideOne) {
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4), At(5), At(6)};
  queue[0].rows = queue[4].rows = 512;
  const BatchLimits limits{.max_rows = 2048};
  EXPECT_THAT(Decide({}, queue, limits, Linear()).batch, ElementsAre(1, 2, 5, 6)) << "at most as many as wide ones";
  EXPECT_THAT(Decide(queue, {}, limits, Linear()).batch, ElementsAre(1, 2, 5, 6)) << "what is encoded decodes together";
  EXPECT_THAT(Decide({}, queue, limits).batch, ElementsAre(1, 2, 5, 6)) << "nothing is known, but the limit";
  queue[0].rows = 8;
  EXPECT_THAT(Decide({}, queue, limits, Linear()).batch, ElementsAre(1, 2, 3, 4, 6)) << "nor for one behind them";
}

// Encoders run over tokens without padding; what they leave has the longest one's room for each.
TEST(BatchPolicyTest, ShortOnesShareABatchWithALongOne) {
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4), At(5)};
  for (QueuedJob& job : queue) job.context_tokens = 10;
  queue[1].context_tokens = 512;
  EXPECT_THAT(Decide(queue, {}, {}, Linear(), true).batch, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(Decide(queue, {}, {.max_context_tokens = 1536}, Linear(), true).batch, ElementsAre(1, 2, 3));
  EXPECT_THAT(Decide({}, queue, {.max_context_tokens = 1536}, Linear(), true).batch, ElementsAre(1, 2, 3, 4, 5));
}

// Two narrow ones would take the places of two wide ones behind them.
TEST(BatchPolicyTest, WhomOthersWouldPadComesAfterThose) {
  CostTable cost;  // a fixed part and 1 ms for each 512 rows: company pays even with padding
  for (int64_t n = 1; n <= 8; ++n) cost.Observe(WorkKind::kDecode, {n, 512 * n, 100 * n}, (4 + n) * kMs, kNow);
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4), At(5), At(6)};
  queue[0].rows = queue[3].rows = queue[4].rows = 512;
  EXPECT_THAT(Decide({}, queue, {.max_rows = 2048}, cost).batch, ElementsAre(1, 2, 4, 5)) << "by urgency";
  queue.resize(4);
  EXPECT_THAT(Decide({}, queue, {.max_rows = 2048}, cost).batch, ElementsAre(1, 2, 3, 4)) << "there is a place left";
}

// What only padding keeps out of a batch is no overload, for which the wide one would be passed over.
TEST(BatchPolicyTest, NarrowOnesAreNoReasonToPassOverATightWideOne) {
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4), At(5), At(6)};
  queue[0].rows = 512;
  queue[0].deadline = kNow + 100 * kMs;  // alone it takes 64 ms, in a full batch four times that
  EXPECT_THAT(Decide({}, queue, {.max_rows = 2048}, Linear(), true).batch, ElementsAre(1));
  for (QueuedJob& job : queue) job.rows = 512;
  EXPECT_THAT(Decide({}, queue, {.max_rows = 2048}, Linear(), true).batch, ElementsAre(2, 3, 4, 5)) << "an overload is";
}

TEST(BatchPolicyTest, WhereRoomCostsNothingAllShareIt) {
  CostTable cost;  // up to 4,096 rows one takes as long as the other
  for (int64_t n = 1; n <= 512; n *= 2) {
    for (int64_t tokens = 100; tokens <= 800; tokens *= 2)
      cost.Observe(WorkKind::kDecode, {1, 8 * n, tokens}, 6 * kMs, kNow);
  }
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4), At(5)};
  queue[0].rows = 256;
  EXPECT_THAT(Decide({}, queue, {.max_rows = 2048}, cost, true).batch, ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(Decide({}, queue, {.max_rows = 1000}, cost).batch, ElementsAre(1, 2, 3)) << "of four 1,024 are computed";
}

TEST(BatchPolicyTest, AJobAboveTheTokenBudgetIsEncodedAlone) {
  QueuedJob huge = At(1);
  huge.context_tokens = 1'000'000;
  EXPECT_THAT(Decide({huge, At(2)}, {}).batch, ElementsAre(1));
}

TEST(BatchPolicyTest, ABatchHoldsOneGroupAndNobodyWaitsWhereThereAreTwo) {
  QueuedJob old1 = At(1), old2 = At(3), new1 = At(2), new2 = At(4);
  new1.group = new2.group = 7;
  EXPECT_THAT(Decide({new2, old2, new1, old1}, {}).batch, ElementsAre(1, 3));
  EXPECT_THAT(Decide({}, {new2, new1, old2}).batch, ElementsAre(2, 4));
  EXPECT_THAT(Decide({new2, new1}, {}).batch, IsEmpty()) << "one group waits for company";
}

TEST(BatchPolicyTest, PriorityThenDeadlineThenSubmission) {
  QueuedJob critical = At(5), soon = At(4), later = At(3), sheddable = At(2), never = At(1);
  critical.priority = Priority::kCritical;
  soon.deadline = kNow + 50 * kMs;
  later.deadline = kNow + 90 * kMs;
  sheddable.priority = Priority::kSheddable;
  sheddable.deadline = kNow + 10 * kMs;
  EXPECT_THAT(Decide({sheddable, never, later, soon, critical, At(0)}, {}, {}, CostTable(), true).batch,
              ElementsAre(5, 4, 3, 0, 1, 2));
}

TEST(BatchPolicyTest, WhoeverStarvesGoesFirst) {
  QueuedJob starving = At(7, absl::Seconds(10)), longer = At(6, absl::Seconds(11)), critical = At(8);
  starving.priority = longer.priority = Priority::kSheddable;
  critical.priority = Priority::kCritical;
  critical.deadline = kNow + 10 * kMs;
  EXPECT_THAT(Decide({critical, starving, longer}, {}, {.max_requests = 2}).batch, ElementsAre(6, 7));
}

// Who wakes up at the deadline's last moment has missed it: half of what a job can wait is kept.
TEST(BatchPolicyTest, ClosesInTimeForTheTightestDeadline) {
  CostTable cost;
  cost.Observe(WorkKind::kEncode, {.requests = 1, .rows = 8, .context_tokens = 100}, 4 * kMs, kNow);
  cost.Observe(WorkKind::kDecode, {.requests = 1, .rows = 8, .context_tokens = 100}, 6 * kMs, kNow);
  QueuedJob job = At(1);
  job.deadline = kNow + absl::Microseconds(10'500);
  EXPECT_EQ(Decide({job}, {}, {}, cost).wait_until, kNow + absl::Microseconds(250)) << "encode and decode to come";
  EXPECT_EQ(Decide({}, {job}, {}, cost).wait_until, kNow + 2 * kMs) << "only decode to come: the queue delay";
  job.deadline = kNow + 10 * kMs;
  EXPECT_THAT(Decide({job}, {}, {}, cost).batch, ElementsAre(1));
}

// Whoever has waited longest, and whoever has least time left, whichever is first in the batch.
TEST(BatchPolicyTest, AnyOfABatchClosesIt) {
  const BatchLimits limits{.max_queue_delay = 8 * kMs};
  QueuedJob old = At(1, 6 * kMs), urgent = At(2);
  old.deadline = kNow + 1000 * kMs;
  urgent.deadline = kNow + 100 * kMs;
  EXPECT_EQ(Decide({old, urgent}, {}, limits).wait_until, kNow + 2 * kMs) << "the older one's delay";
  urgent.deadline = kNow + 2 * kMs;
  EXPECT_EQ(Decide({old, urgent}, {}, limits).wait_until, kNow + kMs) << "half of what the other one has";
  QueuedJob waited = At(3, 6 * kMs);
  waited.deadline = kNow + 4 * kMs;
  EXPECT_THAT(Decide({waited}, {}, limits).batch, ElementsAre(3)) << "of ten it has waited more than five";
}

// On an idle server whose wait for company is longer than a caller's whole deadline.
TEST(BatchPolicyTest, ADeadlineShorterThanTheQueueDelayIsKept) {
  const BatchLimits limits{.max_queue_delay = 50 * kMs};
  CostTable cost;
  cost.Observe(WorkKind::kEncode, {.requests = 1, .rows = 8, .context_tokens = 100}, absl::Microseconds(100), kNow);
  cost.Observe(WorkKind::kDecode, {.requests = 1, .rows = 8, .context_tokens = 100}, absl::Microseconds(200), kNow);
  QueuedJob patient = At(1), tight = At(2);
  tight.deadline = kNow + 20 * kMs;
  const std::vector<QueuedJob> queue = {patient, tight};
  const BatchDecision waits = DecideBatch({.encode = queue}, kNow, cost, limits);
  ASSERT_EQ(waits.action, Action::kWait);
  EXPECT_LE(waits.wait_until, kNow + 10 * kMs) << "of the tighter one";
  EXPECT_GT(waits.wait_until, kNow + 9 * kMs);
  for (const absl::Duration late : {absl::ZeroDuration(), 5 * kMs, 9 * kMs}) {  // a thread that is not woken in time
    EXPECT_THAT(DecideBatch({.encode = queue}, waits.wait_until + late, cost, limits).batch,
                UnorderedElementsAre(1, 2));
  }
}

// Decode: 6 ms alone, 12 ms for four.
TEST(BatchPolicyTest, GrowsOnlyWhileTheTightestJobStillMakesIt) {
  const CostTable cost = MostlyFixed();
  QueuedJob tight = At(1, 5 * kMs);
  tight.deadline = kNow + 7 * kMs;
  const std::vector<QueuedJob> queue = {tight, At(2, 5 * kMs), At(3, 5 * kMs), At(4, 5 * kMs)};
  EXPECT_THAT(Decide({}, queue, {.max_requests = 8}, cost).batch, ElementsAre(1)) << "the others have time";
  EXPECT_THAT(Decide({}, queue, {.max_requests = 8}).batch, ElementsAre(1, 2, 3, 4)) << "nothing is known";
}

TEST(BatchPolicyTest, SmallerJobsStillJoinWhereABigOneWouldTakeTooLong) {
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4)};
  queue[0].deadline = kNow + 3 * kMs;
  queue[1].rows = 16;
  EXPECT_THAT(Decide({}, queue, {}, Linear(), true).batch, ElementsAre(1, 3, 4));
}

// With admission switched off all are probes, and the most urgent of them is often one that is late.
TEST(BatchPolicyTest, WhoIsLateEvenAloneHoldsUpNobody) {
  const CostTable cost = MostlyFixed();
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4)};
  for (QueuedJob& job : queue) {
    job.probe = true;
    job.deadline = kNow + (job.id == 1 ? 5 : 50) * kMs;
  }
  EXPECT_THAT(Decide({}, queue, {}, cost, true).batch, ElementsAre(1, 2, 3, 4));
  queue[0].deadline = kNow + 7 * kMs;
  EXPECT_THAT(Decide({}, queue, {}, cost, true).batch, ElementsAre(1)) << "this one is in time alone";
}

TEST(BatchPolicyTest, CachedContextsMakeNoBatchLonger) {
  CostTable cost;
  for (int64_t n = 1; n <= 8; ++n) {
    cost.Observe(WorkKind::kEncode, {n, 8 * n, 100 * n}, 10 * n * kMs, kNow);
    cost.Observe(WorkKind::kDecode, {n, 8 * n, 100 * n}, kMs, kNow);
  }
  std::vector<QueuedJob> queue;
  for (uint64_t id = 1; id <= 8; ++id) {
    queue.push_back(At(id));
    queue.back().deadline = kNow + 15 * kMs;
    queue.back().expects_context = id > 1;
  }
  EXPECT_THAT(Decide(queue, {}, {.max_requests = 8}, cost).batch, ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));
  for (QueuedJob& job : queue) job.expects_context = false;
  EXPECT_THAT(Decide(queue, {}, {.max_requests = 8}, cost).batch, ElementsAre(1)) << "the first alone makes it";
}

TEST(BatchPolicyTest, UnderOverloadFullBatchesPassOverWhoCannotAffordThem) {
  const CostTable cost = MostlyFixed();
  const BatchLimits limits{.max_requests = 4};
  std::vector<QueuedJob> queue;
  for (uint64_t id = 1; id <= 6; ++id) {
    queue.push_back(At(id, 5 * kMs));
    queue.back().deadline = kNow + (id <= 2 ? 7 : 50) * kMs;
  }
  EXPECT_THAT(Decide({}, queue, limits, cost).batch, ElementsAre(3, 4, 5, 6));
  queue[0].priority = Priority::kCritical;
  EXPECT_THAT(Decide({}, queue, limits, cost).batch, ElementsAre(1)) << "lower classes do not cost it its deadline";
  for (QueuedJob& job : queue) job.deadline = kNow + 7 * kMs;
  queue[0].priority = Priority::kDefault;
  EXPECT_THAT(Decide({}, queue, limits, cost).batch, ElementsAre(1)) << "nobody can afford a full batch";
}

// Alone it takes 6 ms, and three together some 11: behind it they are late, and it is one.
TEST(BatchPolicyTest, WhoCanOnlyGoAloneIsPassedOverWhereMoreWouldBeLateBehindIt) {
  const CostTable cost = MostlyFixed();
  std::vector<QueuedJob> queue = {At(1), At(2), At(3), At(4)};
  for (QueuedJob& job : queue) job.deadline = kNow + (job.id == 1 ? 7 : 14) * kMs;
  EXPECT_THAT(Decide({}, queue, {.max_requests = 8}, cost).batch, ElementsAre(2, 3, 4));
  for (QueuedJob& job : queue) job.deadline = kNow + (job.id == 1 ? 7 : 20) * kMs;
  EXPECT_THAT(Decide({}, queue, {.max_requests = 8}, cost).batch, ElementsAre(1)) << "they have the time to come after";
  for (QueuedJob& job : queue) job.deadline = kNow + (job.id <= 3 ? 7 : 14) * kMs;
  EXPECT_THAT(Decide({}, queue, {.max_requests = 8}, cost).batch, ElementsAre(1)) << "one for one";
}

// Of six that overflow a batch none has the time for a full one; what others have is no reason to lose the six.
TEST(BatchPolicyTest, NobodyIsPassedOverForTheSakeOfALowerPriority) {
  const CostTable cost = MostlyFixed();
  std::vector<QueuedJob> queue;
  for (uint64_t id = 1; id <= 7; ++id) {
    queue.push_back(At(id));
    if (id < 7) queue.back().deadline = kNow + 7 * kMs;
    if (id < 7) queue.back().priority = Priority::kCritical;
  }
  EXPECT_THAT(Decide({}, queue, {.max_requests = 4}, cost).batch, ElementsAre(1));
  queue[6].group = 1;
  queue[6].priority = Priority::kCritical;
  EXPECT_THAT(Decide({}, queue, {.max_requests = 4}, cost).batch, ElementsAre(1)) << "nor of another model's version";
}

TEST(BatchPolicyTest, WhoIsPassedOverDoesNotWaitForOthersCompany) {
  const CostTable cost = MostlyFixed();
  std::vector<QueuedJob> queue;
  for (uint64_t id = 1; id <= 5; ++id) {
    queue.push_back(At(id));
    queue.back().deadline = kNow + (id <= 2 ? 11 : 50) * kMs;
  }
  EXPECT_THAT(Decide({}, queue, {.max_requests = 4}, cost).batch, ElementsAre(3, 4, 5));
}

TEST(BatchPolicyTest, TheMoreUrgentQueueRunsAndDecodeWinsTies) {
  QueuedJob waiting = At(9, 5 * kMs), ready = At(3, 5 * kMs);
  EXPECT_EQ(Decide({waiting}, {ready}).action, Action::kDecode);
  waiting.deadline = kNow + 100 * kMs;
  EXPECT_EQ(Decide({waiting}, {ready}).action, Action::kEncode);
  ready.priority = Priority::kCritical;
  EXPECT_EQ(Decide({waiting}, {ready}).action, Action::kDecode);
  EXPECT_THAT(Decide({At(1)}, {ready}).batch, ElementsAre(3)) << "the other queue still waits for company";
}

TEST(BatchPolicyTest, TheDeadAreNotBatched) {
  CostTable cost;
  cost.Observe(WorkKind::kDecode, {.requests = 1, .rows = 8, .context_tokens = 100}, 6 * kMs, kNow);
  QueuedJob cancelled = At(1), expired = At(2), hopeless = At(3), fine = At(4);
  cancelled.cancelled = true;
  expired.deadline = kNow;
  hopeless.deadline = kNow + 5 * kMs;
  fine.deadline = kNow + 6 * kMs;
  for (const QueuedJob& job : {cancelled, expired, hopeless}) EXPECT_TRUE(IsDead(job, true, {cost, kNow})) << job.id;
  EXPECT_FALSE(IsDead(fine, true, {cost, kNow}));
  EXPECT_FALSE(IsDead(hopeless, true, {CostTable(), kNow})) << "an empty table condemns nobody";
  cost.Observe(WorkKind::kEncode, {.requests = 1, .rows = 8, .context_tokens = 100}, kMs, kNow);
  EXPECT_TRUE(IsDead(fine, false, {cost, kNow})) << "it still needs its encode";
  EXPECT_THAT(Decide({}, {cancelled, expired, hopeless, fine}, {}, cost).batch, ElementsAre(4));
  EXPECT_EQ(Decide({}, {cancelled, expired}, {}, cost).wait_until, absl::InfiniteFuture());
}

}  // namespace
}  // namespace beamline::scheduler
