// SPDX-License-Identifier: Apache-2.0
//
// The engine without threads over a fake runner: what goes in, what comes out, and why not.
#include "engine/engine_core_test.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/log.h"
#include "beamline/stage_timings.h"
#include "engine/answer_oracle.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "history/memory_history_store.h"

namespace beamline::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Code = absl::StatusCode;

TEST_F(EngineCoreTest, AnswersEqualTheDefinitionOnRandomRequests) {
  std::mt19937_64 random(3);
  std::map<ShortReason, int> reasons;
  for (int round = 0; round < 600; ++round) {
    RecommendRequest request = User(absl::StrCat("user", round));
    request.top_k = 1 + random() % 60;
    request.items_per_sid = 1 + random() % 4;
    request.max_per_author = static_cast<int>(random() % 5);
    request.beam_widths = {static_cast<int>(1 + random() % 70)};
    request.exclude_history = random() % 2;
    for (uint64_t i = random() % 30; i > 0; --i) request.history.push_back({.item = random() % (kItems + 20)});
    if (random() % 2) request.eligibility.rule.push_back({"region", {"DE"}});
    if (random() % 3 == 0) request.eligibility.rule.push_back({"kind", {absl::StrCat(random() % 7), "3"}});
    for (uint64_t i = random() % 100; i > 0; --i) request.eligibility.deny.push_back(random() % kItems);
    request.eligibility.restrict_to_allow = random() % 3 == 0;
    if (request.eligibility.restrict_to_allow) {
      for (uint64_t i = random() % 40; i > 0; --i) request.eligibility.allow.push_back(random() % (kItems + 9));
    }
    const RecommendResult expected = Oracle(request, request.beam_widths[0]);
    const absl::StatusOr<RecommendResult> actual = Ask(request);
    ASSERT_TRUE(actual.ok()) << actual.status();
    ASSERT_EQ(actual->items.size(), expected.items.size()) << round;
    for (size_t i = 0; i < expected.items.size(); ++i) {
      ASSERT_EQ(actual->items[i].item, expected.items[i].item) << round << " rank " << i;
      ASSERT_EQ(actual->items[i].sid, expected.items[i].sid);
      ASSERT_EQ(actual->items[i].log_probs, expected.items[i].log_probs);
      ASSERT_EQ(actual->items[i].score, expected.items[i].score);
    }
    ASSERT_EQ(actual->short_reason, expected.short_reason) << round;
    ++reasons[expected.short_reason];
  }
  EXPECT_THAT(reasons, SizeIs(5)) << "every reason came up";
  for (const auto& [reason, count] : reasons) EXPECT_GE(count, 5) << static_cast<int>(reason);
}

// Newest items first, whatever the beam says; an item whose number is `broken` has no value.
class NewestFirst final : public Ranker {
 public:
  explicit NewestFirst(ItemId broken = 0) : broken_(broken) {}
  absl::Status Rank(absl::Span<const RecommendedItem> candidates, const Catalogue& catalogue,
                    absl::Span<float> values) const override {
    if (candidates.empty()) return absl::DataLossError("called with nothing");
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (!catalogue.GetItem(candidates[i].item).has_value()) return absl::DataLossError("unknown item");
      values[i] =
          candidates[i].item == broken_ ? std::nanf("") : std::floor(static_cast<float>(candidates[i].item) / 10);
    }
    return absl::OkStatus();
  }

 private:
  const ItemId broken_;
};

TEST_F(EngineCoreTest, OfEachAuthorTheFirstInTheRankersOrderStay) {
  RecommendRequest request = EverythingOfTwentyBeams();
  Start({.ranker = std::make_shared<NewestFirst>()});
  const auto all = Ask(request);
  ASSERT_TRUE(all.ok()) << all.status();
  std::vector<ItemId> expected, actual;
  std::map<uint64_t, int> of_author;
  for (const RecommendedItem& item : all->items) {
    const uint64_t author = ItemOf(item.item).attributes.author;
    if (author == 0 || ++of_author[author] <= 2) expected.push_back(item.item);
  }
  request.max_per_author = 2;
  const auto limited = Ask(request);
  for (const RecommendedItem& item : limited->items) actual.push_back(item.item);
  EXPECT_LT(expected.size(), all->items.size());
  EXPECT_EQ(actual, expected);
  request.top_k = 5;
  EXPECT_THAT(Ask(request)->items, SizeIs(5));
}

TEST_F(EngineCoreTest, ARankerOrdersEverythingThatWasGenerated) {
  RecommendRequest request = EverythingOfTwentyBeams();
  std::vector<RecommendedItem> expected = Oracle(request, 20).items;
  std::stable_sort(expected.begin(), expected.end(),
                   [](const RecommendedItem& a, const RecommendedItem& b) { return a.item / 10 > b.item / 10; });
  request.top_k = 7;
  ASSERT_GT(expected.size(), 20u);
  Start({.ranker = std::make_shared<NewestFirst>()});
  const absl::StatusOr<RecommendResult> answer = Ask(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->items, SizeIs(7));
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(answer->items[i].item, expected[i].item) << i;
    EXPECT_EQ(answer->items[i].score, expected[i].score) << "the score stays the beam's";
  }
}

// The model's own ranker orders the SIDs, equal values by score; an embedder's orders what is left equal by that.
TEST_F(EngineCoreTest, TheModelsRankerOrdersSidsBeforeAnythingIsCutOff) {
  const auto value = [](const Sid& sid) { return static_cast<float>(sid[2] % 2) - 0.5f; };
  RecommendRequest request = EverythingOfTwentyBeams();
  std::vector<RecommendedItem> expected = Oracle(request, 20).items;
  std::stable_sort(expected.begin(), expected.end(),
                   [&](const RecommendedItem& a, const RecommendedItem& b) { return value(a.sid) > value(b.sid); });
  request.top_k = 7;
  ASSERT_GT(expected.size(), 20u);
  Start({});
  EXPECT_FALSE(Ask(request)->items[0].value.has_value());
  runner_->value = value;
  absl::StatusOr<RecommendResult> answer = Ask(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->items, SizeIs(7));
  for (size_t i = 0; i < 7; ++i) {
    EXPECT_EQ(answer->items[i].item, expected[i].item) << i;
    EXPECT_EQ(answer->items[i].score, expected[i].score) << "the score stays the beam's";
    EXPECT_EQ(answer->items[i].value, value(expected[i].sid));
  }

  std::stable_sort(expected.begin(), expected.end(),
                   [](const RecommendedItem& a, const RecommendedItem& b) { return a.item / 10 > b.item / 10; });
  Start({.ranker = std::make_shared<NewestFirst>()});
  runner_->value = value;
  answer = Ask(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  for (size_t i = 0; i < 7; ++i) EXPECT_EQ(answer->items[i].item, expected[i].item) << i;
}

TEST_F(EngineCoreTest, AValueThatIsNoNumberFailsItsRequestAlone) {
  RecommendRequest request = User("ranked");
  request.beam_widths = {64};
  request.items_per_sid = 100;
  Start({.ranker = std::make_shared<NewestFirst>(/*broken=*/12)});
  const absl::Status status = Ask(request).status();
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("item 12 "));
  request.eligibility.deny = {12};
  EXPECT_TRUE(Ask(request).ok());
  request.eligibility.restrict_to_allow = true;
  EXPECT_TRUE(Ask(request).ok()) << "nothing eligible: nothing to rank";
}

TEST_F(EngineCoreTest, TellsVersionsWidthsCountsAndTimes) {
  RecommendRequest request = User("u");
  request.history = {{.item = 1}, {.item = 100'000}, {.item = 2}, {.item = 0}};
  request.company = std::make_shared<Company>(2);  // the other never comes: it waits for as long as it may
  const auto answer = Ask(request);
  ASSERT_TRUE(answer.ok());
  EXPECT_EQ(answer->model_version, "model-1");
  EXPECT_EQ(answer->catalogue_version, "catalogue-1");
  EXPECT_THAT(answer->beam_widths, ElementsAre(32, 32, 32));
  EXPECT_EQ(answer->seen_events, 2);
  EXPECT_EQ(answer->unknown_items, 2);
  EXPECT_FALSE(answer->context_cached);
  EXPECT_EQ(answer->timings.queue, 2 * kMs);
  EXPECT_EQ(answer->timings.encode, kMs);
  EXPECT_EQ(answer->timings.decode, 3 * kMs);
  EXPECT_EQ(answer->timings.total, 6 * kMs);
  const auto cached = Ask(User("cached"));
  EXPECT_TRUE(cached->context_cached);
  EXPECT_EQ(cached->timings.encode, absl::ZeroDuration());
  const EngineStatus status = engine_->GetStatus();
  EXPECT_TRUE(status.ready);
  EXPECT_EQ(status.completed, 2u);
  EXPECT_EQ(status.context_hits, 1u);
  EXPECT_EQ(status.context_misses, 1u);
  EXPECT_EQ(status.in_flight, 0);
  EXPECT_EQ(status.levels, 3);
  EXPECT_EQ(status.num_items, static_cast<uint64_t>(kItems));
  EXPECT_EQ(status.num_sids, engine_->catalogue()->num_sids());
  EXPECT_EQ(status.codebook_fingerprint, "codebook");
  EXPECT_EQ(status.parameters, 7u);
  EXPECT_TRUE(status.ranker);
  EXPECT_EQ(engine_->catalogue()->version(), "catalogue-1");
}

TEST_F(EngineCoreTest, AColdUserGetsAnAnswer) {
  RecommendRequest unknown = User("u");
  unknown.history.assign(100, {.item = 424242});
  for (const RecommendRequest& request : {User("u"), RecommendRequest(), unknown}) {
    const auto answer = Ask(request);
    ASSERT_TRUE(answer.ok());
    EXPECT_THAT(answer->items, SizeIs(10));
    EXPECT_EQ(answer->unknown_items, static_cast<int>(request.history.size()));
  }
}

TEST_F(EngineCoreTest, RefusesBeforeAnythingRuns) {
  RecommendRequest request = User("u");
  request.top_k = 0;
  EXPECT_THAT(std::string(Ask(request).status().message()), HasSubstr("top_k"));
  request = User("u");
  request.deadline = clock_->Now();
  EXPECT_EQ(Ask(request).status().code(), Code::kDeadlineExceeded);
  EXPECT_EQ(runner_->encoded.load(), 0);
  EXPECT_EQ(engine_->GetStatus().rejected, 1u);
  EXPECT_EQ(engine_->GetStatus().failed, 1u);
}

// Does what a test wants while it is asked.
class OddStore final : public UserHistoryStore {
 public:
  explicit OddStore(std::function<absl::Status()> on_get) : on_get_(std::move(on_get)) {}
  absl::StatusOr<std::vector<Event>> Get(absl::string_view, int) override {
    if (absl::Status status = on_get_(); !status.ok()) return status;
    return std::vector<Event>{{.item = 3}};
  }

 private:
  std::function<absl::Status()> on_get_;
};

class ThrowingRanker final : public Ranker {
 public:
  absl::Status Rank(absl::Span<const RecommendedItem>, const Catalogue&, absl::Span<float>) const override {
    throw std::runtime_error("no features today");
  }
};

// An embedder's code may throw; the engine lives and says whose it was.
TEST_F(EngineCoreTest, WhatStoresAndRankersThrowEndsTheirRequestAlone) {
  bool down = true;
  Start({.history_store = std::make_shared<OddStore>([&]() -> absl::Status {
           if (down) throw std::runtime_error("connection reset");
           return absl::OkStatus();
         })});
  absl::Status status = Ask(User("u")).status();
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("history store failed: connection reset"));
  down = false;
  EXPECT_TRUE(Ask(User("u")).ok());
  Start({.history_store = std::make_shared<OddStore>([] { return absl::OkStatus(); }),
         .ranker = std::make_shared<ThrowingRanker>()});
  status = Ask(User("u")).status();
  EXPECT_EQ(status.code(), Code::kInternal);
  EXPECT_THAT(status.message(), HasSubstr("ranker failed: no features today"));
  Start({.history_store = std::make_shared<OddStore>([]() -> absl::Status {
           throw 42;  // NOLINT(bugprone-std-exception-baseclass): an embedder may
         })});
  EXPECT_THAT(Ask(User("u")).status().message(), HasSubstr("history store failed: it threw what is no std::exception"));
}

// Takes its time.
class SlowRanker final : public Ranker {
 public:
  explicit SlowRanker(std::function<void()> pass_time) : pass_time_(std::move(pass_time)) {}
  absl::Status Rank(absl::Span<const RecommendedItem>, const Catalogue&, absl::Span<float>) const override {
    pass_time_();
    return absl::OkStatus();
  }

 private:
  const std::function<void()> pass_time_;
};

TEST_F(EngineCoreTest, AnAnswerThatTheRankerFinishesTooLateIsNone) {
  absl::Duration ranking = absl::Milliseconds(50);
  Start({.ranker = std::make_shared<SlowRanker>([&] { clock_->Advance(ranking); })});
  RecommendRequest request = User("u");
  request.deadline = clock_->Now() + absl::Milliseconds(200);
  EXPECT_TRUE(Ask(request).ok());
  ranking = absl::Milliseconds(300);
  request.deadline = clock_->Now() + absl::Milliseconds(200);
  EXPECT_EQ(Ask(request).status().code(), Code::kDeadlineExceeded);
}

// Refused is what the engine would not take; a code alone does not say so.
TEST_F(EngineCoreTest, OnlyRefusalsCountAsRejected) {
  absl::Status store_says = absl::UnavailableError("the store is out of reach");
  Start({.queue_capacity = 1, .history_store = std::make_shared<OddStore>([&] { return store_says; })});
  const auto counts = [&] {
    const EngineStatus status = engine_->GetStatus();
    return std::vector<uint64_t>{status.completed, status.failed, status.rejected};
  };
  EXPECT_EQ(Ask(User("u")).status().code(), Code::kUnavailable);
  EXPECT_THAT(counts(), ElementsAre(0, 1, 0)) << "a store out of reach";
  store_says = absl::InvalidArgumentError("the store's own trouble");
  EXPECT_EQ(Ask(User("u")).status().code(), Code::kInvalidArgument);
  EXPECT_THAT(counts(), ElementsAre(0, 2, 0));
  store_says = absl::OkStatus();
  EXPECT_EQ(Ask(User("exhausted decode")).status().code(), Code::kResourceExhausted);
  EXPECT_THAT(counts(), ElementsAre(0, 3, 0)) << "a runner that ran out of something";

  RecommendRequest request = User("u");
  request.eligibility.rule.assign(65, {"region", {"DE"}});
  EXPECT_EQ(Ask(request).status().code(), Code::kInvalidArgument);
  EXPECT_THAT(counts(), ElementsAre(0, 3, 1));
  std::vector<Code> codes;
  const auto keep = [&](const absl::StatusOr<RecommendResult>& result) { codes.push_back(result.status().code()); };
  engine_->Submit(User("u"), keep);
  engine_->Submit(User("u"), keep);  // the queue holds one
  request = User("u");
  request.priority = Priority::kCritical;
  engine_->Submit(request, keep);  // and lets the first go
  EXPECT_THAT(counts(), ElementsAre(0, 3, 2));
  engine_->Drain(clock_->Now());
  EXPECT_THAT(codes, ElementsAre(Code::kResourceExhausted, Code::kResourceExhausted, Code::kUnavailable));
  EXPECT_THAT(counts(), ElementsAre(0, 4, 3)) << "what the drain cut off had been accepted";
  EXPECT_EQ(Ask(User("late")).status().code(), Code::kUnavailable);
  EXPECT_THAT(counts(), ElementsAre(0, 4, 4));
}

TEST_F(EngineCoreTest, ASlowStoreDoesNotOutrunTheDeadline) {
  Start({.history_store = std::make_shared<OddStore>([&] {
           clock_->Advance(30 * kMs);
           return absl::OkStatus();
         })});
  RecommendRequest nothing = User("u");
  nothing.eligibility.restrict_to_allow = true;  // answered without a model
  nothing.deadline = clock_->Now() + 30 * kMs;
  EXPECT_EQ(Ask(nothing).status().code(), Code::kDeadlineExceeded);
  nothing.deadline = clock_->Now() + 31 * kMs;
  EXPECT_TRUE(Ask(nothing).ok());
  EXPECT_EQ(engine_->GetStatus().failed, 1u);
}

TEST_F(EngineCoreTest, NothingEligibleNeedsNoModel) {
  RecommendRequest request = User("u");
  request.eligibility.restrict_to_allow = true;
  const auto answer = Ask(request);
  ASSERT_TRUE(answer.ok());
  EXPECT_THAT(answer->items, IsEmpty());
  EXPECT_EQ(answer->short_reason, ShortReason::kNoEligibleItems);
  EXPECT_THAT(answer->beam_widths, ElementsAre(32, 32, 32));
  EXPECT_EQ(runner_->encoded.load(), 0);
}

TEST_F(EngineCoreTest, AFailingRequestLeavesItsNeighboursAlone) {
  std::map<std::string, absl::StatusOr<RecommendResult>> answers;
  for (const std::string user : {"a", "bad encode", "b", "bad decode", "c"}) {
    engine_->Submit(User(user), [&answers, user](auto result) { answers.emplace(user, std::move(result)); });
  }
  RunAll();
  EXPECT_EQ(LogText(answers.at("bad encode").status()), "INTERNAL: encode broke");
  EXPECT_EQ(LogText(answers.at("bad decode").status()), "INTERNAL: non_finite_logits");
  for (const std::string user : {"a", "b", "c"}) {
    const auto& answer = answers.at(user);
    ASSERT_TRUE(answer.ok());
    const auto expected = Oracle(User(user), 32);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(answer->items[i].item, expected.items[i].item);
    EXPECT_EQ(answer->timings.encode_requests, 5);
    EXPECT_EQ(answer->timings.decode_requests, 4) << "the one that failed in encode is not there";
  }
  EXPECT_EQ(engine_->scheduler_stats().encode_batches, 1u);
}

TEST_F(EngineCoreTest, TellsHowAnAnswerWasFoundWhereAsked) {
  auto store = std::make_shared<history::MemoryHistoryStore>();
  ASSERT_TRUE(store->Append("stored", {{.item = 3, .timestamp_ms = 1000}, {.item = 7, .timestamp_ms = 2000}}).ok());
  Start({.history_store = store});
  RecommendRequest request = User("stored");
  const auto plain = Ask(request);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->trace, nullptr);
  request.trace = true;
  const auto answer = Ask(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_NE(answer->trace, nullptr);
  ASSERT_THAT(answer->trace->history, SizeIs(2)) << "the store's";
  EXPECT_EQ(answer->trace->history[1].item, 7u);
  ASSERT_THAT(answer->trace->levels, SizeIs(3));
  EXPECT_EQ(answer->trace->levels[2][0].score, answer->items[0].score);
  request.eligibility.restrict_to_allow = true;  // nothing is eligible: no search
  const auto nothing = Ask(request);
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_THAT(nothing->trace->levels, IsEmpty());
}

TEST_F(EngineCoreTest, StepsAddUpToDecodeAndTheBatchIsTold) {
  runner_->cost = absl::Milliseconds(3);
  const auto answer = Ask(User("u"));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(answer->timings.steps, ElementsAre(3 * kMs, 3 * kMs, 3 * kMs));
  EXPECT_EQ(answer->timings.decode, 9 * kMs);
  EXPECT_EQ(answer->timings.encode_requests, 1);
  EXPECT_EQ(answer->timings.decode_requests, 1);
  EXPECT_EQ(answer->timings.decode_rows, 32);
  const StageTimings& t = answer->timings;
  EXPECT_EQ(t.prepare + t.queue + t.encode + t.decode + t.resolve, t.total);
}

TEST_F(EngineCoreTest, StagesAddUpBehindASlowCallbackAndWithoutAModel) {
  const auto sum = [](const StageTimings& t) { return t.prepare + t.queue + t.encode + t.decode + t.resolve; };
  StageTimings behind;
  engine_->Submit(User("first"), [&](const auto&) { clock_->Advance(100 * kMs); });
  engine_->Submit(User("second"), [&](const absl::StatusOr<RecommendResult>& result) {
    ASSERT_TRUE(result.ok()) << result.status();
    behind = result->timings;
  });
  RunAll();
  EXPECT_EQ(behind.resolve, 100 * kMs);
  EXPECT_EQ(sum(behind), behind.total);
  Start({.history_store = std::make_shared<OddStore>([&] {
           clock_->Advance(30 * kMs);
           return absl::OkStatus();
         })});
  RecommendRequest nothing = User("u");
  nothing.eligibility.restrict_to_allow = true;
  const auto answer = Ask(nothing);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->timings.prepare, 30 * kMs);
  EXPECT_EQ(sum(answer->timings), answer->timings.total);
}

TEST_F(EngineCoreTest, CallbacksMayBeNull) {
  engine_->Submit(User("u"), nullptr);
  engine_->Submit(RecommendRequest{.top_k = -1}, nullptr);
  engine_->Reload("", nullptr);
  engine_->Rollback(nullptr);
  while (engine_->StepRepository()) {
  }
  RunAll();
  EXPECT_EQ(engine_->GetStatus().completed, 1u);
  EXPECT_EQ(engine_->GetStatus().rejected, 1u);
}

TEST_F(EngineCoreTest, AFailureTellsHowFarTheRequestCame) {
  RecommendRequest late = User("late");
  late.deadline = clock_->Now() + absl::Milliseconds(500);
  absl::Status waited;
  engine_->Submit(late, [&](const absl::StatusOr<RecommendResult>& result) { waited = result.status(); });
  clock_->Advance(absl::Seconds(1));
  RunAll();
  ASSERT_TRUE(GetStageTimings(waited).has_value()) << waited;
  EXPECT_EQ(GetStageTimings(waited)->queue, absl::Seconds(1));
  EXPECT_EQ(GetStageTimings(waited)->decode, absl::ZeroDuration());
  runner_->cost = absl::Milliseconds(3);
  const auto broken = Ask(User("bad decode"));
  ASSERT_TRUE(GetStageTimings(broken.status()).has_value());
  EXPECT_EQ(GetStageTimings(broken.status())->encode, 3 * kMs);
  EXPECT_EQ(GetStageTimings(broken.status())->decode, 9 * kMs);
  EXPECT_FALSE(GetStageTimings(Ask(RecommendRequest{.top_k = -1}).status()).has_value()) << "it never came in";
}

TEST_F(EngineCoreTest, NoUsersIdIsInWhatAStoreSaysWentWrong) {
  struct BrokenStore final : UserHistoryStore {
    absl::StatusOr<std::vector<Event>> Get(absl::string_view user, int) override {
      return absl::UnavailableError(absl::StrCat("no answer for ", user, " from shard 7"));
    }
  };
  Start({.history_store = std::make_shared<BrokenStore>()});
  const auto answer = Ask(User("canary"));
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("no answer for <user> from shard 7"));
  Start({.history_store =
             std::make_shared<OddStore>([]() -> absl::Status { throw std::runtime_error("cannot parse canary's"); })});
  EXPECT_EQ(Ask(User("canary")).status().message(), "history store failed: cannot parse <user>'s");
  Start({.history_store = std::make_shared<BrokenStore>()});
  EXPECT_EQ(Ask(User("7")).status().message(), "no answer for <user> from shard <user>");
  EXPECT_EQ(Ask(User("s")).status().message(), "no answer for <user> from shard 7") << "shard keeps its s";
  EXPECT_EQ(Ask(User("shar")).status().message(), "no answer for <user> from <user>d 7") << "longer ones go everywhere";
}

TEST_F(EngineCoreTest, TheStoreSpeaksOnlyForRequestsWithoutHistory) {
  auto store = std::make_shared<history::MemoryHistoryStore>();
  ASSERT_TRUE(store->Append("u", {{.item = 3}, {.item = 777'777}}).ok());
  Start({.history_store = store});
  EXPECT_EQ(Ask(User("u"))->unknown_items, 1);
  EXPECT_EQ(Ask(User("stranger"))->unknown_items, 0);
  RecommendRequest own = User("u");
  own.history = {{.item = 5}};
  EXPECT_EQ(Ask(own)->unknown_items, 0);
  RecommendRequest request = User("u");
  request.exclude_history = true;
  request.top_k = 1000;
  request.items_per_sid = 1000;
  request.beam_widths = {64};  // every SID
  const auto answer = Ask(request);
  for (const RecommendedItem& item : answer->items) EXPECT_NE(item.item, 3u) << "what the store knows was excluded";
  EXPECT_EQ(answer->items.size(), kItems - 1);
}

TEST_F(EngineCoreTest, CancelAtEveryStage) {
  for (int stage = -2; stage < 3; ++stage) {
    absl::Status status = absl::UnknownError("no callback");
    Engine::Canceller cancel =
        engine_->Submit(User("u"), [&](absl::StatusOr<RecommendResult> result) { status = result.status(); });
    runner_->before_step = [&](int step) {
      if (step == stage) cancel();
    };
    if (stage == -2) cancel();
    if (stage == -1) {
      clock_->Advance(2 * kMs);
      engine_->Step();  // encode
      cancel();
    }
    RunAll();
    EXPECT_EQ(status.code(), Code::kCancelled) << stage;
    cancel();
    cancel();
  }
  runner_->before_step = nullptr;
  EXPECT_EQ(engine_->GetStatus().in_flight, 0);
}

TEST_F(EngineCoreTest, ACancellerMayOutliveItsEngine) {
  Engine::Canceller cancel = engine_->Submit(User("u"), [](auto result) { EXPECT_TRUE(result.ok()); });
  engine_.reset();
  cancel();
}

TEST_F(EngineCoreTest, DrainRefusesAndFinishes) {
  int ok = 0;
  for (int i = 0; i < 3; ++i) engine_->Submit(User("u"), [&](auto result) { ok += result.ok(); });
  EXPECT_TRUE(engine_->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(ok, 3);
  EXPECT_FALSE(engine_->GetStatus().ready);
  EXPECT_EQ(Ask(User("late")).status().code(), Code::kUnavailable);
}

TEST_F(EngineCoreTest, RefusesPartsThatDoNotBelongTogether) {
  auto runner = std::make_unique<FakeRunner>(MakeCatalogue(5));
  runner->info_.codebook_fingerprint = "another";
  auto engine = EngineCore::Create({.source = SourceOf(std::move(runner))});
  EXPECT_EQ(engine.status().code(), Code::kFailedPrecondition);
  EXPECT_THAT(std::string(engine.status().message()), HasSubstr("another"));
  runner = std::make_unique<FakeRunner>(MakeCatalogue(5));
  runner->info_.level_sizes = {4, 4};
  EXPECT_EQ(EngineCore::Create({.source = SourceOf(std::move(runner))}).status().code(), Code::kFailedPrecondition);
  EXPECT_EQ(EngineCore::Create(
                {.options = {.workers = 65}, .source = SourceOf(std::make_unique<FakeRunner>(MakeCatalogue(5)))})
                .status()
                .code(),
            Code::kInvalidArgument);
}

// A1.7: 50 ms deadlines before 500 ms of queued work.
TEST_F(EngineCoreTest, NothingRunsAfterItsDeadline) {
  runner_->cost = 10 * kMs;
  Start({.max_batch_requests = 1});
  runner_->cost = 10 * kMs;
  std::map<Code, int> codes;
  for (int i = 0; i < 40; ++i) {
    RecommendRequest request = User("u");
    request.deadline = clock_->Now() + 50 * kMs;
    engine_->Submit(request, [&](auto result) { ++codes[result.status().code()]; });
  }
  RunAll();
  EXPECT_EQ(runner_->executed_late.load(), 0);
  EXPECT_GE(codes[Code::kOk], 1);
  EXPECT_EQ(codes[Code::kOk] + codes[Code::kDeadlineExceeded] + codes[Code::kResourceExhausted], 40);
}

}  // namespace
}  // namespace beamline::engine
