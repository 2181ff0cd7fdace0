// SPDX-License-Identifier: Apache-2.0
#include "scheduler/admission.h"

#include <vector>

#include "beamline/retry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/test_time.h"

namespace beamline::scheduler {
namespace {

using ::testing::HasSubstr;

const QueuedJob kJob{.id = 9, .deadline = kNow + 100 * kMs, .submitted = kNow, .rows = 8, .context_tokens = 100};

// One request: 4 ms encode, 6 ms decode; a full batch of 4: 8 ms and 12 ms.
CostTable Measured() {
  CostTable cost;
  cost.Observe(WorkKind::kEncode, {1, 8, 100}, 4 * kMs, kNow);
  cost.Observe(WorkKind::kDecode, {1, 8, 100}, 6 * kMs, kNow);
  cost.Observe(WorkKind::kEncode, {4, 32, 400}, 8 * kMs, kNow);
  cost.Observe(WorkKind::kDecode, {4, 32, 400}, 12 * kMs, kNow);
  return cost;
}

const BatchLimits kLimits{.max_rows = 32, .max_requests = 4};
const AdmissionView kIdle{.now = kNow, .limits = kLimits, .queued = 0, .capacity = 10};

TEST(AdmissionTest, AcceptsWhatFits) {
  EXPECT_TRUE(Admit(kJob, kIdle, Measured()).status.ok());
  EXPECT_EQ(EstimateLatency(kJob, kIdle, Measured()), 10 * kMs);
}

TEST(AdmissionTest, RefusesAPastDeadlineAtOnce) {
  QueuedJob job = kJob;
  for (absl::Time deadline : {kNow, kNow - kMs, absl::InfinitePast(), absl::UnixEpoch()}) {
    job.deadline = deadline;
    EXPECT_EQ(Admit(job, kIdle, CostTable()).status.code(), absl::StatusCode::kDeadlineExceeded);
  }
}

TEST(AdmissionTest, RefusesWhatCannotFinishEvenAlone) {
  QueuedJob job = kJob;
  job.deadline = kNow + 9 * kMs;
  const absl::Status status = Admit(job, kIdle, Measured()).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("about 10ms, and the deadline is in 9ms"));
  EXPECT_EQ(GetRetryAfter(status), kMs);
  EXPECT_EQ(GetRefusalReason(status), kCannotFinish);
  EXPECT_TRUE(Admit(job, kIdle, CostTable()).status.ok()) << "an empty table refuses nothing";
  AdmissionView earlier = kIdle;
  earlier.now -= absl::Seconds(2);
  EXPECT_TRUE(Admit(job, earlier, Measured()).status.ok());
}

// One request: 4 ms encode, 6 ms decode.
const std::vector<BatchCost> kLeast = {{WorkKind::kEncode, {1, 8, 100}, 4 * kMs},
                                       {WorkKind::kDecode, {1, 8, 100}, 6 * kMs}};

TEST(AdmissionTest, AnIdleEngineTriesWhatTheLeastCostAllows) {
  CostTable cost;
  cost.SetBaseline(kLeast);
  for (int i = 0; i < 50; ++i) {  // by now four times as much
    for (const BatchCost& least : kLeast) cost.Observe(least.kind, least.size, 4 * least.duration, kNow);
  }
  AdmissionView view = kIdle;
  QueuedJob job = kJob;
  job.deadline = kNow + 20 * kMs;
  EXPECT_FALSE(Admit(job, view, cost).status.ok()) << "not idle";
  view.idle = true;
  EXPECT_TRUE(Admit(job, view, cost).status.ok());
  EXPECT_TRUE(Admit(job, view, cost).probe);
  job.deadline = kNow + 9 * kMs;
  EXPECT_EQ(Admit(job, view, cost).status.code(), absl::StatusCode::kResourceExhausted);
  job.deadline = kNow + absl::Seconds(1);
  EXPECT_FALSE(Admit(job, view, cost).probe) << "an ordinary request";
}

TEST(AdmissionTest, AnIdleEngineTriesAnythingWhereNothingWasMeasuredLately) {
  CostTable cost;
  cost.SetBaseline(kLeast);
  AdmissionView view = kIdle;
  QueuedJob job = kJob;
  job.deadline = kNow + kMs;
  EXPECT_FALSE(Admit(job, view, cost).status.ok());
  view.idle = true;
  EXPECT_TRUE(Admit(job, view, cost).probe);
  view.capacity = 0;
  EXPECT_FALSE(Admit(job, view, cost).status.ok()) << "no room where there is none";
  view = kIdle;
  view.idle = true;
  job.rows = kLimits.max_rows + 1;
  EXPECT_FALSE(Admit(job, view, cost).status.ok()) << "what no batch can hold is no probe";
}

TEST(AdmissionTest, WhoseContextIsAtHandPaysForNoEncode) {
  QueuedJob job = kJob;
  job.deadline = kNow + 7 * kMs;
  EXPECT_FALSE(Admit(job, kIdle, Measured()).status.ok());
  job.expects_context = true;
  EXPECT_TRUE(Admit(job, kIdle, Measured()).status.ok());
  EXPECT_FALSE(IsDead(job, /*encoded=*/false, {Measured(), kNow}));
  job.deadline = kNow + 5 * kMs;
  EXPECT_FALSE(Admit(job, kIdle, Measured()).status.ok()) << "it is decoded all the same";
  CostTable cost;
  cost.SetBaseline(kLeast);
  for (int i = 0; i < 50; ++i) {
    for (const BatchCost& least : kLeast) cost.Observe(least.kind, least.size, 4 * least.duration, kNow);
  }
  AdmissionView idle = kIdle;
  idle.idle = true;
  job.deadline = kNow + 7 * kMs;
  EXPECT_TRUE(Admit(job, idle, cost).probe);
}

TEST(AdmissionTest, TheWaitIsTheWorkAheadAlone) {
  AdmissionView view = kIdle;
  EXPECT_EQ(EstimateWait(view, Measured()), absl::ZeroDuration());
  view.until_worker_free = 5 * kMs;
  view.encode_ahead = {8, 64, 800};    // two full batches
  view.decode_ahead = {12, 96, 1200};  // three
  EXPECT_EQ(EstimateWait(view, Measured()), (5 + 2 * 8 + 3 * 12) * kMs);
  view.encode_ahead = {4, 64,
                       400};  // one batch by requests, two by the rows of what follows: each of 2, with 200 tokens
  view.decode_ahead = {};
  const absl::Duration half = Measured().Estimate(WorkKind::kEncode, {2, 32, 200}, kNow);
  EXPECT_GT(half, absl::ZeroDuration());
  EXPECT_EQ(EstimateWait(view, Measured()), 5 * kMs + 2 * half);
}

TEST(AdmissionTest, CountsTheWorkAhead) {
  AdmissionView view = kIdle;
  view.until_worker_free = 5 * kMs;
  view.encode_ahead = {7, 56, 700};    // with the job: two full batches
  view.decode_ahead = {11, 88, 1100};  // three
  EXPECT_EQ(EstimateLatency(kJob, view, Measured()), (5 + 2 * 8 + 3 * 12) * kMs);
  view.workers = 2;
  EXPECT_EQ(EstimateLatency(kJob, view, Measured()), (5 + 8 + 2 * 12) * kMs);
  QueuedJob job = kJob;
  job.deadline = kNow + 30 * kMs;
  const absl::Status status = Admit(job, view, Measured()).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(GetRetryAfter(status), 14 * kMs)
      << "when the backlog will have shrunk enough: 7 ms, and a fifth of the wait for luck";
  job.deadline = absl::InfiniteFuture();
  EXPECT_TRUE(Admit(job, view, Measured()).status.ok());
}

TEST(AdmissionTest, TheMarginOfAWaitGrowsWithThoseWhoExpire) {
  WaitMargin margin;
  const double least = margin.value();
  margin.Answered();
  EXPECT_EQ(margin.value(), least);
  for (int i = 0; i < 10; ++i) margin.Expired();
  const double grown = margin.value();
  EXPECT_GT(grown, least);
  for (int i = 0; i < 1000; ++i) margin.Answered();
  EXPECT_NEAR(margin.value(), least, 1e-9) << "one for a hundred";
  for (int i = 0; i < 100'000; ++i) margin.Expired();
  EXPECT_LE(margin.value(), 2) << "a device that stood still is forgotten in time";

  AdmissionView view = kIdle;
  view.decode_ahead = {4, 32, 400};
  view.until_worker_free = 10 * kMs;
  QueuedJob job = kJob;
  job.deadline = kNow + EstimateLatency(kJob, view, Measured()) + 5 * kMs;
  view.wait_margin = 0.1;
  EXPECT_TRUE(Admit(job, view, Measured()).status.ok());
  view.wait_margin = 2;
  EXPECT_EQ(GetRefusalReason(Admit(job, view, Measured()).status), kCannotFinish);
}

TEST(AdmissionTest, AFullQueueRefusesOrMakesTheLowestLeave) {
  AdmissionView view = kIdle;
  view.queued = view.capacity = 3;
  view.lowest_queued = Priority::kDefault;
  const absl::Status status = Admit(kJob, view, Measured()).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), HasSubstr("3 requests wait, its capacity is 3"));
  EXPECT_TRUE(GetRetryAfter(status).has_value());
  EXPECT_EQ(GetRefusalReason(status), kQueueFull);
  view.lowest_queued = Priority::kSheddable;
  const AdmissionDecision decision = Admit(kJob, view, Measured());
  EXPECT_TRUE(decision.status.ok());
  EXPECT_TRUE(decision.evict_lowest);
  view.queued = 2;
  EXPECT_FALSE(Admit(kJob, view, Measured()).evict_lowest);
  view.capacity = 0;
  view.queued = 0;
  view.lowest_queued.reset();
  EXPECT_FALSE(Admit(kJob, view, Measured()).status.ok()) << "capacity 0 takes nothing";
}

// Benchmarks switch it off; the queue is as long as it was, and who comes too late comes too late.
TEST(AdmissionTest, SwitchedOffNoEstimateRefuses) {
  AdmissionView view = kIdle;
  view.by_cost = false;
  view.encode_ahead = view.decode_ahead = {40, 320, 4000};
  QueuedJob job = kJob;
  job.deadline = kNow + kMs;
  const AdmissionDecision decision = Admit(job, view, Measured());
  EXPECT_TRUE(decision.status.ok()) << decision.status;
  EXPECT_TRUE(decision.probe) << "or it would be ended as it waits";
  view.queued = view.capacity;
  view.lowest_queued = Priority::kSheddable;
  EXPECT_TRUE(Admit(job, view, Measured()).evict_lowest);
  EXPECT_TRUE(Admit(job, view, Measured()).probe);
  view.lowest_queued = job.priority;
  EXPECT_EQ(GetRefusalReason(Admit(job, view, Measured()).status), kQueueFull);
  job.deadline = kNow;
  EXPECT_EQ(Admit(job, view, Measured()).status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(AdmissionTest, TooManyRowsAndStopping) {
  QueuedJob job = kJob;
  job.rows = 33;
  const absl::Status status = Admit(job, kIdle, CostTable()).status;
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("33 beam rows"));
  AdmissionView view = kIdle;
  view.stopping = true;
  EXPECT_EQ(Admit(kJob, view, CostTable()).status.code(), absl::StatusCode::kUnavailable);
}

TEST(RetryTest, RoundsUpAndIgnoresOthers) {
  absl::Status status = absl::ResourceExhaustedError("x");
  EXPECT_EQ(GetRetryAfter(status), std::nullopt);
  SetRetryAfter(status, absl::Microseconds(10));
  EXPECT_EQ(GetRetryAfter(status), kMs);
  SetRetryAfter(status, absl::Microseconds(2001));
  EXPECT_EQ(GetRetryAfter(status), 3 * kMs);
}

}  // namespace
}  // namespace beamline::scheduler
