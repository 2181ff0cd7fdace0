// SPDX-License-Identifier: Apache-2.0
//
// The engine under more load than it can carry, without threads: who is refused when, and who gets which beams.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "beamline/retry.h"
#include "engine/engine_core.h"
#include "engine/fake_runner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

using ::testing::AllOf;
using ::testing::Each;
using ::testing::SizeIs;

constexpr absl::Duration kLoadMs = absl::Milliseconds(1);

class CountingStore final : public UserHistoryStore {
 public:
  absl::StatusOr<std::vector<Event>> Get(absl::string_view, int) override {
    ++asked;
    return std::vector<Event>{{.item = 1}};
  }
  int asked = 0;
};

// One request to a batch: 10 ms encode, three steps of 10 ms.
class EngineOverloadTest : public ::testing::Test {
 protected:
  void Start(EngineOptions options) {
    auto runner = std::make_unique<FakeRunner>(MakeCatalogue(150), clock_.get(), clock_.get());
    runner->cost = 10 * kLoadMs;
    runner_ = runner.get();
    options.max_batch_requests = 1;
    auto engine = EngineCore::Create({.options = std::move(options),
                                      .source = SourceOf(std::move(runner)),
                                      .clock = clock_,
                                      .preparation_threads = 0,
                                      .inline_execution = true});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    runner_->decoded = 0;
    clock_->Advance(absl::Hours(1));
  }
  // Answers are in order of submission.
  void Submit(absl::Duration deadline, RecommendRequest request = {}) {
    const size_t index = answers_.size();
    answers_.push_back(absl::UnknownError("not yet"));
    if (request.user_id.empty()) request.user_id = "u";
    request.deadline = clock_->Now() + deadline;
    engine_->Submit(std::move(request),
                    [this, index](absl::StatusOr<RecommendResult> result) { answers_[index] = std::move(result); });
  }
  static RecommendRequest OneEvent(std::vector<int> beam_widths = {}, int top_k = 5) {
    RecommendRequest request;
    request.history = {{.item = 1}};  // as long as what the warm-up measures
    request.beam_widths = std::move(beam_widths);
    request.top_k = top_k;
    return request;
  }
  void RunAll() {
    for (absl::Time again; (again = engine_->Step()) != absl::InfiniteFuture();) {
      if (again > clock_->Now()) clock_->Set(again);
    }
  }

  std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  FakeRunner* runner_ = nullptr;
  std::unique_ptr<EngineCore> engine_;
  std::vector<absl::StatusOr<RecommendResult>> answers_;
};

// An hour after the start nothing is known but what the warm-up measured, and that is enough.
TEST_F(EngineOverloadTest, TheFirstBurstIsRefusedByTheCostsOfTheWarmUp) {
  const auto store = std::make_shared<CountingStore>();
  Start({.history_store = store});
  for (int i = 0; i < 50; ++i) Submit(100 * kLoadMs);
  for (int i = 2; i < 50; ++i) {
    EXPECT_EQ(answers_[i].status().code(), absl::StatusCode::kResourceExhausted) << i << " inside Submit";
    EXPECT_TRUE(GetRetryAfter(answers_[i].status()).has_value());
  }
  EXPECT_LE(store->asked, 3) << "a hopeless request is refused before it costs anything";
  RunAll();
  EXPECT_TRUE(answers_[0].ok()) << answers_[0].status();
  EXPECT_TRUE(answers_[1].ok()) << answers_[1].status();
  EXPECT_EQ(runner_->decoded.load(), 2);
  EXPECT_EQ(runner_->executed_late.load(), 0);
  EXPECT_EQ(engine_->GetStatus().rejected, 48u);
}

// 30 ms each, not 40: a burst of known users is not refused, nor narrowed, for encodes that will not run.
TEST_F(EngineOverloadTest, WhoseContextIsCachedNeedsNoTimeForIt) {
  Start({.narrowing = {{65 * kLoadMs, 16}}});
  RecommendRequest known = OneEvent();
  known.user_id = "cached";
  for (int i = 0; i < 3; ++i) Submit(105 * kLoadMs, known);
  RunAll();
  for (const auto& answer : answers_) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_TRUE(answer->context_cached);
    EXPECT_EQ(answer->narrowing, 0);
  }
}

TEST_F(EngineOverloadTest, BeamsNarrowByTheLadderAndTheAnswerSaysSo) {
  Start({.narrowing = {{50 * kLoadMs, 16}, {100 * kLoadMs, 8}}});
  for (int i = 0; i < 6; ++i) Submit(absl::Seconds(10), OneEvent());
  Submit(absl::Seconds(10), OneEvent({4}));
  Submit(absl::Seconds(10), OneEvent({}, 12));
  RecommendRequest shared = OneEvent({}, 12);
  shared.items_per_sid = 4;  // at most: a SID may hold one
  Submit(absl::Seconds(10), shared);
  RunAll();
  const std::pair<int, int> expected[] = {{0, 32}, {0, 32}, {1, 16}, {2, 8}, {2, 8}, {2, 8}, {0, 4}, {2, 12}, {2, 12}};
  for (size_t i = 0; i < answers_.size(); ++i) {
    ASSERT_TRUE(answers_[i].ok()) << i << ": " << answers_[i].status();
    EXPECT_EQ(answers_[i]->narrowing, expected[i].first) << i;
    EXPECT_THAT(answers_[i]->beam_widths, AllOf(SizeIs(3), Each(expected[i].second))) << i;
  }
  EXPECT_EQ(engine_->GetStatus().narrowed, 6u);
  Submit(absl::Seconds(10));
  RunAll();
  EXPECT_EQ(answers_.back()->narrowing, 0) << "the load is gone, and so is the narrowing";
}

TEST_F(EngineOverloadTest, WithoutALadderBeamsAreAsAskedFor) {
  Start({});
  for (int i = 0; i < 20; ++i) Submit(absl::Seconds(10));
  RunAll();
  for (const auto& answer : answers_) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->narrowing, 0);
    EXPECT_THAT(answer->beam_widths, Each(32));
  }
}

}  // namespace
}  // namespace beamline::engine
