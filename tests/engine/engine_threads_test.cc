// SPDX-License-Identifier: Apache-2.0
//
// The engine with all its threads over a fake runner, for ThreadSanitizer: every accepted request's callback runs
// exactly once, whatever is cancelled, expires, fails or is drained, and a neighbour's fate changes no answer.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "engine/engine_core.h"
#include "engine/fake_runner.h"
#include "gtest/gtest.h"
#include "testing/eventually.h"

namespace beamline::engine {
namespace {

using testing::Eventually;

std::unique_ptr<EngineCore> Start(EngineOptions options, absl::Duration cost,
                                  std::function<void(size_t)> before_encode = nullptr) {
  auto runner = std::make_unique<FakeRunner>(MakeCatalogue(150));
  runner->cost = cost;
  runner->before_encode = std::move(before_encode);
  options.max_queue_delay = absl::Microseconds(200);
  options.default_deadline = absl::Minutes(10);  // how late this machine may be is nothing that is tested
  auto engine = EngineCore::Create({.options = std::move(options), .source = SourceOf(std::move(runner))});
  EXPECT_TRUE(engine.ok()) << engine.status();
  return *std::move(engine);
}

RecommendRequest RandomRequest(std::mt19937_64& random) {
  RecommendRequest request;
  const uint64_t kind = random() % 12;
  request.user_id = kind == 0 ? "bad encode" : kind == 1 ? "bad decode" : kind == 2 ? "cached" : "good";
  request.top_k = kind == 3 ? -1 : 5;
  request.priority = static_cast<Priority>(random() % 3);
  request.beam_widths = {static_cast<int>(1 + random() % 64)};
  if (random() % 3 == 0) request.deadline = absl::Now() + absl::Microseconds(static_cast<int>(random() % 20'000) - 200);
  if (random() % 3 == 0) request.eligibility.rule = {{"kind", {absl::StrCat(random() % 5)}}};
  if (random() % 3 == 0) request.eligibility.deny = {random() % 150, random() % 150};
  return request;
}

TEST(EngineThreadsTest, EveryCallbackRunsExactlyOnce) {
  constexpr int kSubmitters = 4, kRequests = 300;
  std::atomic<int> calls{0}, twice{0}, ok{0}, wrong{0};
  std::vector<Engine::Canceller> survivors;
  std::mutex mu;
  {
    auto engine = Start({.queue_capacity = 100}, absl::Microseconds(50));
    std::vector<std::thread> submitters;
    for (int t = 0; t < kSubmitters; ++t) {
      submitters.emplace_back([&, t] {
        std::mt19937_64 random(t);
        std::vector<Engine::Canceller> cancellers;
        for (int i = 0; i < kRequests; ++i) {
          auto once = std::make_shared<std::atomic<int>>(0);
          RecommendRequest request = RandomRequest(random);
          const bool bad = request.user_id.starts_with("bad") || request.top_k < 0;
          cancellers.push_back(engine->Submit(std::move(request), [&, once, bad](auto result) {
            if (once->fetch_add(1) != 0) twice.fetch_add(1);
            calls.fetch_add(1);
            if (result.ok()) ok.fetch_add(1);
            if (result.ok() && (bad || result->items.empty() || result->items.size() > 5)) wrong.fetch_add(1);
          }));
          if (random() % 4 == 0) cancellers[random() % cancellers.size()]();
          if (random() % 8 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 800));
          EXPECT_GE(engine->GetStatus().in_flight, 0);
        }
        std::lock_guard lock(mu);
        for (Engine::Canceller& canceller : cancellers) survivors.push_back(std::move(canceller));
      });
    }
    for (std::thread& submitter : submitters) submitter.join();
    EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
    const EngineStatus status = engine->GetStatus();
    EXPECT_EQ(status.in_flight, 0);
    EXPECT_EQ(status.queued, 0);
    EXPECT_EQ(status.completed + status.failed + status.rejected, static_cast<uint64_t>(kSubmitters * kRequests));
    EXPECT_EQ(static_cast<int>(status.completed), ok.load());
  }
  for (Engine::Canceller& canceller : survivors) canceller();
  EXPECT_EQ(calls.load(), kSubmitters * kRequests);
  EXPECT_EQ(twice.load(), 0);
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_GT(ok.load(), 0);
}

// Between Submit's return and the callback: also while it goes from preparation to the queue.
TEST(EngineThreadsTest, WhoeverLooksSeesARequestInFlight) {
  auto engine = Start({}, absl::Microseconds(50));
  std::atomic<int> waiting{0};  // the number of the request that waits for its callback; others: none
  std::atomic<int> missed{0};
  std::atomic<bool> stop{false};
  std::thread looker([&] {
    while (!stop.load()) {
      const int before = waiting.load();
      const int64_t in_flight = engine->GetStatus().in_flight;
      if (before > 0 && waiting.load() == before && in_flight < 1) missed.fetch_add(1);
    }
  });
  for (int i = 1; i <= 300; ++i) {
    RecommendRequest request{.user_id = "good"};
    request.eligibility.deny = {5};  // prepared on a thread
    std::atomic<bool> done{false};
    engine->Submit(std::move(request), [&](const auto&) {
      waiting.store(-i);
      done.store(true);
    });
    int none = 0;
    waiting.compare_exchange_strong(none, i);  // unless the callback has begun by now
    while (!done.load()) std::this_thread::yield();
    waiting.store(0);
  }
  stop.store(true);
  looker.join();
  EXPECT_EQ(missed.load(), 0);
}

TEST(EngineThreadsTest, DrainWithADeadlineEndsEverything) {
  for (int round = 0; round < 5; ++round) {
    std::atomic<int> calls{0}, submitted{0};
    std::atomic<bool> stop{false};
    auto engine = Start({.max_batch_requests = 2}, absl::Milliseconds(1));
    std::thread submitter([&] {
      std::mt19937_64 random(round);
      while (!stop.load()) {
        engine->Submit(RandomRequest(random), [&](auto) { calls.fetch_add(1); });
        submitted.fetch_add(1);
        std::this_thread::sleep_for(std::chrono::microseconds(50));
      }
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    engine->Drain(absl::Now() + absl::Milliseconds(2));
    EXPECT_EQ(engine->GetStatus().in_flight, 0);
    stop.store(true);
    submitter.join();
    EXPECT_EQ(calls.load(), submitted.load());
  }
}

// Hangs until it is told to go on.
class HangingStore final : public UserHistoryStore {
 public:
  absl::StatusOr<std::vector<Event>> Get(absl::string_view, int) override {
    std::unique_lock lock(mu_);
    ++waiting_;
    changed_.wait(lock, [this] { return released_; });
    return std::vector<Event>();
  }
  void Await(int calls = 1) {
    EXPECT_TRUE(Eventually([=, this] {
      const std::lock_guard lock(mu_);
      return waiting_ >= calls;
    }));
  }
  void Release() {
    std::lock_guard lock(mu_);
    released_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  int waiting_ = 0;        // guarded by mu_
  bool released_ = false;  // guarded by mu_
};

TEST(EngineThreadsTest, OnlyWhatMayTakeLongIsPreparedOnAnotherThread) {
  auto runner = std::make_unique<FakeRunner>(MakeCatalogue(150));
  std::thread::id prepared_on;
  runner->before_input = [&] { prepared_on = std::this_thread::get_id(); };
  auto engine = EngineCore::Create({.options = {}, .source = SourceOf(std::move(runner))});
  ASSERT_TRUE(engine.ok()) << engine.status();
  const auto prepared_here = [&](RecommendRequest request) {
    EXPECT_TRUE((*engine)->Recommend(std::move(request)).ok());
    return prepared_on == std::this_thread::get_id();
  };
  EXPECT_TRUE(prepared_here({.user_id = "good"}));
  RecommendRequest request{.user_id = "good", .history = {{.item = 3}}, .exclude_history = true};
  EXPECT_TRUE(prepared_here(request));
  request.eligibility.deny = {5};
  EXPECT_FALSE(prepared_here(request));
  request.eligibility = {.rule = {{"kind", {"1"}}}};
  EXPECT_FALSE(prepared_here(request));
}

TEST(EngineThreadsTest, DrainDoesNotWaitForAStoreThatHangs) {
  auto store = std::make_shared<HangingStore>();
  auto engine = Start({.history_store = store}, absl::ZeroDuration());
  std::atomic<int> unavailable{0}, calls{0};
  constexpr int kCalls = 12;  // more than there are threads for stores
  for (int i = 0; i < kCalls; ++i) {
    engine->Submit({.user_id = "good"}, [&](const auto& result) {
      calls.fetch_add(1);
      if (absl::IsUnavailable(result.status())) unavailable.fetch_add(1);
    });
  }
  store->Await();
  // Where Drain waits for the store, nothing but this ends the test.
  std::thread rescue([&] {
    EXPECT_TRUE(Eventually([&] { return unavailable.load() == kCalls; }));
    store->Release();
  });
  EXPECT_FALSE(engine->Drain(absl::Now() + absl::Milliseconds(20)));
  EXPECT_EQ(unavailable.load(), kCalls);
  EXPECT_EQ(engine->GetStatus().in_flight, 0);
  EXPECT_EQ(engine->GetStatus().failed, static_cast<uint64_t>(kCalls));
  rescue.join();
  engine.reset();
  EXPECT_EQ(calls.load(), kCalls);
}

// How a request ended, told to whoever waits.
class Ending {
 public:
  Engine::Callback Callback() {
    return [this](const absl::StatusOr<RecommendResult>& result) {
      std::lock_guard lock(mu_);
      code_ = result.status().code();
      changed_.notify_all();
    };
  }
  // Nullopt: it does not end.
  std::optional<absl::StatusCode> Await() {
    std::unique_lock lock(mu_);
    changed_.wait_for(lock, absl::ToChronoSeconds(testing::kPatience), [this] { return code_.has_value(); });
    return code_;
  }

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  std::optional<absl::StatusCode> code_;  // guarded by mu_
};

TEST(EngineThreadsTest, AHangingStoreHoldsNoRequestBeyondItsDeadlineOrItsCallersPatience) {
  auto store = std::make_shared<HangingStore>();
  auto engine = Start({.history_store = store}, absl::ZeroDuration());
  const absl::Cleanup release = [&] { store->Release(); };
  std::vector<std::unique_ptr<Ending>> endings;  // more than there are threads for stores
  const auto ask = [&](absl::Duration patience) {
    endings.push_back(std::make_unique<Ending>());
    return engine->Submit({.user_id = "good", .deadline = engine->Now() + patience}, endings.back()->Callback());
  };
  auto cancel_first = ask(absl::Minutes(10));
  for (int i = 0; i < 20; ++i) ask(absl::Milliseconds(20 + i % 3));
  auto cancel_last = ask(absl::Minutes(10));
  store->Await();
  cancel_first();
  cancel_last();
  EXPECT_EQ(endings.front()->Await(), absl::StatusCode::kCancelled);
  EXPECT_EQ(endings.back()->Await(), absl::StatusCode::kCancelled);
  for (int i = 1; i <= 20; ++i) EXPECT_EQ(endings[i]->Await(), absl::StatusCode::kDeadlineExceeded) << i;
  EXPECT_TRUE(engine->Drain(engine->Now() + testing::kPatience)) << "nobody was left";
  EXPECT_EQ(engine->GetStatus().in_flight, 0);
  EXPECT_EQ(engine->GetStatus().failed, 22u);
}

TEST(EngineThreadsTest, AHangingStoreHoldsUpAndFillsUpOnlyThoseWhoAskIt) {
  auto store = std::make_shared<HangingStore>();
  auto engine = Start({.queue_capacity = 12, .history_store = store}, absl::ZeroDuration());
  const absl::Cleanup release = [&] { store->Release(); };
  std::vector<std::unique_ptr<Ending>> endings;
  std::vector<Engine::Canceller> cancel;
  for (int i = 0; i < 12; ++i) {
    endings.push_back(std::make_unique<Ending>());
    cancel.push_back(
        engine->Submit({.user_id = "good", .deadline = engine->Now() + absl::Minutes(10)}, endings.back()->Callback()));
  }
  store->Await(8);
  for (Engine::Canceller& canceller : cancel) canceller();
  for (const auto& ending : endings) EXPECT_EQ(ending->Await(), absl::StatusCode::kCancelled);
  const auto full = engine->Recommend({.user_id = "good"});
  EXPECT_TRUE(absl::IsResourceExhausted(full.status())) << full.status() << ": twelve calls of the store hang still";
  RecommendRequest other{.user_id = "good", .history = {{.item = 3}}};
  other.eligibility.deny = {5};
  other.deadline = engine->Now() + absl::Minutes(1);
  EXPECT_TRUE(engine->Recommend(other).ok());
}

// The store is released while the callback of a request that was ended meanwhile still runs: its thread has then
// nothing to do any more with a call whose callback has not returned.
TEST(EngineThreadsTest, DrainWaitsForTheCallbackOfARequestThatEndedWhileItsStoreHung) {
  auto store = std::make_shared<HangingStore>();
  auto engine = Start({.history_store = store}, absl::ZeroDuration());
  const absl::Cleanup release = [&] { store->Release(); };
  std::atomic<bool> begun{false}, ended{false};
  Engine::Canceller cancel = engine->Submit({.user_id = "good"}, [&](const auto&) {
    begun.store(true);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ended.store(true);
  });
  store->Await();
  cancel();
  EXPECT_TRUE(Eventually([&] { return begun.load(); }));
  store->Release();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // for the store's thread to be done
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  EXPECT_TRUE(ended.load());
}

// The callback runs on the thread of the first drain, and the store's thread is done with the request meanwhile.
TEST(EngineThreadsTest, ASecondDrainWaitsForTheCallbacksOfTheFirst) {
  auto store = std::make_shared<HangingStore>();
  auto engine = Start({.history_store = store}, absl::ZeroDuration());
  const absl::Cleanup release = [&] { store->Release(); };
  std::atomic<bool> begun{false}, ended{false};
  engine->Submit({.user_id = "good"}, [&](const auto&) {
    begun.store(true);
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    ended.store(true);
  });
  store->Await();
  std::thread first([&] { EXPECT_FALSE(engine->Drain(engine->Now())); });
  EXPECT_TRUE(Eventually([&] { return begun.load(); }));
  store->Release();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // for the store's thread to be done
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  EXPECT_TRUE(ended.load());
  first.join();
}

TEST(EngineThreadsTest, AReloadsCallbackMayAskAnEngineThatIsBeingDestroyed) {
  std::unique_ptr<EngineCore> engine;
  std::atomic<EngineCore*> loading_of{nullptr};
  std::atomic<int> loads{0}, reloads{0}, refused{0};
  RunnerSource source = SourceOf(std::make_unique<FakeRunner>(MakeCatalogue(150)));
  source.load = [&, first = source.load](const std::string& bundle, const std::string& digest) {
    if (loads.fetch_add(1) > 0) {
      EXPECT_TRUE(Eventually([&] { return loading_of.load()->GetStatus().not_ready == "stopping"; }));
    }
    return first(bundle, digest);
  };
  auto made = EngineCore::Create({.options = {}, .source = std::move(source)});
  ASSERT_TRUE(made.ok()) << made.status();
  engine = *std::move(made);
  EngineCore* const asked = engine.get();
  loading_of.store(asked);
  for (const char* bundle : {"loads as the engine goes", "waits"}) {
    engine->Reload(bundle, [&, asked](const absl::StatusOr<ModelVersion>& version) {
      EXPECT_FALSE(version.ok());
      EXPECT_EQ(asked->GetStatus().not_ready, "stopping");
      asked->Submit({.user_id = "good"}, [&](const auto& result) {
        if (absl::IsUnavailable(result.status())) refused.fetch_add(1);
      });
      reloads.fetch_add(1);
    });
  }
  EXPECT_TRUE(Eventually([&] { return loads.load() >= 2; }));
  engine.reset();
  EXPECT_EQ(reloads.load(), 2);
  EXPECT_EQ(refused.load(), 2);
}

TEST(EngineThreadsTest, AFullQueueRefusesAtOnce) {
  std::atomic<bool> hold{false};
  auto engine = Start({.max_batch_requests = 1, .queue_capacity = 3}, absl::ZeroDuration(),
                      [&](size_t) { EXPECT_TRUE(Eventually([&] { return !hold.load(); })); });
  std::atomic<int> refused{0}, calls{0};
  hold.store(true);
  for (int i = 0; i < 60; ++i) {
    engine->Submit({.user_id = "good"}, [&](auto result) {
      calls.fetch_add(1);
      if (absl::IsResourceExhausted(result.status())) refused.fetch_add(1);
    });
  }
  EXPECT_GE(refused.load(), 55) << "but for those that wait and the one or two at work";
  hold.store(false);
  EXPECT_TRUE(engine->Drain(absl::InfiniteFuture()));
  EXPECT_EQ(calls.load(), 60);
  EXPECT_LT(refused.load(), 60);
}

TEST(EngineThreadsTest, RecommendWaitsForItsAnswer) {
  auto engine = Start({}, absl::Microseconds(100));
  std::vector<std::thread> callers;
  for (int t = 0; t < 4; ++t) {
    callers.emplace_back([&engine] {
      for (int i = 0; i < 20; ++i) {
        const auto answer = engine->Recommend({.user_id = "good", .top_k = 3});
        ASSERT_TRUE(answer.ok()) << answer.status();
        EXPECT_EQ(answer->items.size(), 3u);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

}  // namespace
}  // namespace beamline::engine
