// SPDX-License-Identifier: Apache-2.0
//
// What the engine says of itself: ready or not, when it last succeeded, where requests expired, what they took and
// waited.
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "beamline/stage_timings.h"
#include "engine/engine_core_test.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

using ::testing::HasSubstr;

TEST_F(EngineCoreTest, NotReadyWhileEveryBatchFails) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(engine_->GetStatus().ready);
    EXPECT_FALSE(Ask(User("bad decode")).ok());
  }
  EXPECT_FALSE(engine_->GetStatus().ready);
  EXPECT_EQ(engine_->GetStatus().not_ready, "the last 3 batches failed");
  EXPECT_TRUE(Ask(User("a")).ok());
  EXPECT_TRUE(engine_->GetStatus().ready);
}

// What the work took is told also of those whose answers come too late.
TEST_F(EngineCoreTest, AnAnswerThatIsPutTogetherTooLateTellsWhatItTook) {
  runner_->cost = absl::Milliseconds(3);
  RecommendRequest first = User("first"), second = User("second");
  first.deadline = clock_->Now() + absl::Milliseconds(400);
  second.deadline = clock_->Now() + absl::Milliseconds(500);
  absl::Status late;
  engine_->Submit(first, [&](const auto&) { clock_->Advance(absl::Seconds(1)); });
  engine_->Submit(second, [&](const absl::StatusOr<RecommendResult>& result) { late = result.status(); });
  RunAll();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(late.message()), HasSubstr("while the answer was put together"));
  ASSERT_TRUE(GetStageTimings(late).has_value());
  EXPECT_EQ(GetStageTimings(late)->encode, absl::Milliseconds(3));
  EXPECT_EQ(GetStageTimings(late)->decode, absl::Milliseconds(9));
}

// Of a device that has failed for good: nobody is let in any more, and whoever is in hears why.
TEST_F(EngineCoreTest, AFaultFailsWhatIsInFlightAndAdmitsNothingMore) {
  Start({.max_batch_requests = 1});
  std::vector<std::string> ended;
  for (const char* user : {"running", "queued"}) {
    engine_->Submit(User(user), [&](const absl::StatusOr<RecommendResult>& result) {
      EXPECT_EQ(result.status().code(), absl::StatusCode::kUnavailable);
      ended.emplace_back(result.status().message());
    });
  }
  const absl::Status fault = absl::UnavailableError("the device has failed: an illegal memory access");
  runner_->before_step = [&](int step) {
    if (step == 1) runner_->fault_ = fault;
  };
  RunAll();
  EXPECT_THAT(ended, ::testing::ElementsAre(fault.message(), fault.message()));
  EngineStatus status = engine_->GetStatus();
  EXPECT_EQ(status.fault, fault);
  EXPECT_FALSE(status.ready) << "not only after three batches";
  EXPECT_EQ(status.not_ready, fault.message());
  EXPECT_EQ(status.failed, 2u);

  bool inside = true;
  engine_->Submit(User("late"), [&](const absl::StatusOr<RecommendResult>& result) {
    EXPECT_TRUE(inside) << "the callback of a refusal";
    EXPECT_EQ(result.status(), fault);
  });
  inside = false;
  status = engine_->GetStatus();
  EXPECT_EQ(status.rejected, 1u);
  EXPECT_EQ(status.in_flight, 0);
}

TEST_F(EngineCoreTest, NotReadyWhileABatchHangs) {
  int looked = 0;
  runner_->before_step = [&](int step) {
    if (step != 1) return;
    EXPECT_TRUE(engine_->GetStatus().ready);
    EXPECT_GT(engine_->GetStatus().executing_rows, 0);
    clock_->Advance(absl::Seconds(50));
    const EngineStatus status = engine_->GetStatus();
    EXPECT_FALSE(status.ready);
    EXPECT_THAT(status.not_ready, HasSubstr("a batch hangs"));
    ++looked;
  };
  RecommendRequest request = User("u");
  request.deadline = absl::InfiniteFuture();
  EXPECT_FALSE(Ask(request).ok()) << "its deadline passed meanwhile";
  EXPECT_EQ(looked, 1);
  EXPECT_TRUE(engine_->GetStatus().ready) << "the batch has ended";
  EXPECT_EQ(engine_->GetStatus().executing_rows, 0);
}

// Each alone is its caller's doing; a minute of nothing else says that the device is too slow for anybody.
TEST_F(EngineCoreTest, NotReadyWhenNobodyGetsAnAnswer) {
  runner_->before_step = [&](int step) {
    if (step == 1) clock_->Advance(absl::Seconds(25));
  };
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(Ask(User("u")).status().code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_TRUE(engine_->GetStatus().ready) << i;
  }
  EXPECT_FALSE(Ask(User("u")).ok());
  EXPECT_THAT(engine_->GetStatus().not_ready, ::testing::StartsWith("no batch has given an answer for 7"));
  runner_->before_step = {};
  EXPECT_TRUE(Ask(User("u")).ok());
  EXPECT_TRUE(engine_->GetStatus().ready);
}

// An embedder who sends no work to what is not ready would never have it back.
TEST_F(EngineCoreTest, SilenceAfterAnUnansweredBatchIsNotUnreadiness) {
  runner_->before_step = [&](int step) {
    if (step == 1) clock_->Advance(absl::Seconds(25));
  };
  EXPECT_FALSE(Ask(User("u")).ok());
  clock_->Advance(absl::Hours(1));
  EXPECT_EQ(engine_->GetStatus().not_ready, "");
}

// The gate that is asked before a device's search is not the end of a step.
TEST_F(EngineCoreTest, OfASearchInOneGoNoStepIsTold) {
  runner_->cost = absl::Milliseconds(3);
  runner_->at_once = true;
  const auto answer = Ask(User("u"));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->timings.steps.empty());
  EXPECT_EQ(answer->timings.decode, 9 * kMs);
  EXPECT_EQ(answer->timings.decode_requests, 1);
}

TEST_F(EngineCoreTest, TellsWhenItLastSucceeded) {
  const absl::Time start = clock_->Now();
  EXPECT_EQ(engine_->GetStatus().last_success, start) << "the warm-up did";
  clock_->Advance(absl::Seconds(5));
  EXPECT_FALSE(Ask(User("bad decode")).ok());
  EXPECT_EQ(engine_->GetStatus().last_success, start);
  ASSERT_TRUE(Ask(User("u")).ok());
  EXPECT_GT(engine_->GetStatus().last_success, start + absl::Seconds(5));
}

TEST_F(EngineCoreTest, CountsWhereRequestsExpired) {
  RecommendRequest late = User("late");
  late.deadline = clock_->Now() + absl::Milliseconds(500);
  engine_->Submit(late, [](const absl::StatusOr<RecommendResult>& result) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
  });
  clock_->Advance(absl::Seconds(1));
  RunAll();
  EXPECT_EQ(engine_->GetStatus().expired, 1u);
  EXPECT_EQ(engine_->GetStatus().expired_waiting, 1u);
  runner_->before_step = [&](int step) { clock_->Advance(step == 1 ? absl::Seconds(60) : absl::ZeroDuration()); };
  EXPECT_TRUE(absl::IsDeadlineExceeded(Ask(User("slow")).status()));
  EXPECT_EQ(engine_->GetStatus().expired, 2u);
  EXPECT_EQ(engine_->GetStatus().expired_waiting, 1u);
}

TEST_F(EngineCoreTest, NobodyWaitsForCompanyThatNeedsNoModel) {
  RecommendRequest refused = User("v"), nothing_eligible = User("v");
  refused.top_k = 0;
  nothing_eligible.eligibility.restrict_to_allow = true;
  for (RecommendRequest last : {refused, nothing_eligible}) {
    RecommendRequest first = User("u");
    first.company = last.company = std::make_shared<Company>(2);
    absl::Duration waited = absl::InfiniteDuration();
    engine_->Submit(std::move(first), [&](absl::StatusOr<RecommendResult> answer) { waited = answer->timings.queue; });
    engine_->Submit(last, nullptr);
    RunAll();
    EXPECT_EQ(waited, absl::ZeroDuration());
  }
}

}  // namespace
}  // namespace beamline::engine
