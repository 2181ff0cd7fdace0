// SPDX-License-Identifier: Apache-2.0
//
// Random schedules of everything that an engine's users may do at once, over fake runners, for the sanitizers: requests
// of every kind with deadlines of microseconds, cancels at any moment, callbacks that submit and cancel, models good
// and bad that come and go, a store that hangs, fails and throws, drains and destruction with work in flight. What is
// asked for holds for every schedule, so nothing here fails by timing alone; a schedule that stands still ends the
// process. BEAMLINE_STRESS_SEED repeats the rounds of a seed (not their interleaving), BEAMLINE_STRESS_ROUNDS makes it
// longer.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/engine_core.h"
#include "engine/fake_runner.h"
#include "gtest/gtest.h"
#include "history/memory_history_store.h"

namespace beamline::engine {
namespace {

using Random = std::mt19937_64;
using Code = absl::StatusCode;
constexpr int kStressItems = 60;

void Sleep(Random& random, int max_us) { std::this_thread::sleep_for(std::chrono::microseconds(random() % max_us)); }

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  uint64_t value = 0;
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

// Does by the user's name what the name says, or keeps a history. Those who hang do so until Release.
class MoodyStore final : public UserHistoryStore {
 public:
  absl::StatusOr<std::vector<Event>> Get(absl::string_view user, int limit) override {
    if (user == "store throws") throw std::runtime_error("the store threw");
    if (user == "store throws an int") throw 7;  // NOLINT
    if (user == "store fails") return absl::NotFoundError("the store has no disk");
    if (user == "store lies") return std::vector<Event>{{.item = 1, .timestamp_ms = 9}, {.item = 2, .timestamp_ms = 5}};
    if (user == "store is slow") std::this_thread::sleep_for(std::chrono::milliseconds(1));
    if (user == "store hangs") {
      std::unique_lock lock(mu_);
      changed_.wait(lock, [this] { return released_; });
    }
    return kept.Get(user, limit);
  }
  void Release() {
    std::lock_guard lock(mu_);
    released_ = true;
    changed_.notify_all();
  }
  history::MemoryHistoryStore kept{{.max_users = 3, .max_events = 20}};

 private:
  std::mutex mu_;
  std::condition_variable changed_;
  bool released_ = false;  // guarded by mu_
};

constexpr std::array kUsers = {"good",
                               "good",
                               "cached",
                               "",
                               "bad encode",
                               "bad decode",
                               "exhausted decode",
                               "store throws",
                               "store throws an int",
                               "store fails",
                               "store lies",
                               "store is slow",
                               "store hangs"};

// One engine, what is done to it, and what must come of that.
class Round {
 public:
  explicit Round(uint64_t seed) : random_(seed), rollbacks_(random_() % 2 == 0) {
    EngineOptions options{.bundle = "1", .workers = static_cast<int>(1 + random_() % 3)};
    options.queue_capacity = random_() % 2 == 0 ? 8 : 200;
    options.max_batch_requests = static_cast<int>(1 + random_() % 8);
    options.max_queue_delay = absl::Microseconds(random_() % 500);
    options.keep_previous_model = random_() % 2 == 0;
    options.cost_measurement = absl::ZeroDuration();
    options.max_rules = 2;
    if (random_() % 2 == 0) options.narrowing = {{absl::ZeroDuration(), 8}, {absl::Milliseconds(1), 5}};
    if (random_() % 4 != 0) options.history_store = store_;
    auto engine = EngineCore::Create({.options = std::move(options), .source = Source()});
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
    raw_ = engine_.get();
  }

  void Run() {
    std::vector<std::thread> submitters;
    for (int t = 0; t < 3; ++t) submitters.emplace_back([this, seed = random_()] { SubmitSome(seed); });
    std::thread canceller([this, seed = random_()] { CancelUntilOver(seed); });
    std::thread reloader([this, seed = random_()] { ReloadSome(seed); });
    Sleep(random_, 20'000);
    const bool early = random_() % 3 == 0, release_first = random_() % 2 == 0;
    if (early) Drain();
    if (release_first) store_->Release();
    for (std::thread& submitter : submitters) submitter.join();
    reloader.join();
    if (random_() % 2 == 0) Drain();  // else the destructor
    store_->Release();
    if (random_() % 2 == 0) {
      draining_ = true;
      const bool none_left = engine_->Drain(absl::InfiniteFuture());
      EXPECT_TRUE(none_left || left_.load());
      ExpectCounts();
    }
    draining_ = true;
    engine_.reset();
    EXPECT_EQ(callbacks_.load(), asked_.load());
    EXPECT_EQ(reload_callbacks_.load(), reloads_asked_.load());
    EXPECT_EQ(alive_.use_count(), 1) << "a callback outlived the engine";
    for (const auto& model : models_) EXPECT_TRUE(model.expired()) << "a canceller keeps a model in memory";
    over_ = true;
    canceller.join();
  }

  std::array<std::atomic<int>, 17> ended{};  // by code
  std::atomic<int> reloaded{0};

 private:
  struct Asked {
    std::string user;
    int top_k = 0, floor = 0;
    bool may_be_cancelled = false;
    std::atomic<int> calls{0}, ceiling{0};
  };

  // Versions are numbers, in the order in which they are asked for; some are no good.
  RunnerSource Source() {
    return {.identify = [](const std::string& bundle) -> absl::StatusOr<std::string> { return bundle; },
            .load = [this](const std::string& bundle,
                           const std::string&) -> absl::StatusOr<std::unique_ptr<runtime::Runner>> {
              int number = 0;
              if (!absl::SimpleAtoi(bundle, &number)) throw std::runtime_error("no version");
              if (number % 5 == 4) return absl::DataLossError("damaged");
              auto runner =
                  std::make_unique<FakeRunner>(MakeCatalogue(kStressItems, absl::StrCat("catalogue-of-", bundle)));
              runner->info_.version = runner->salt = bundle;
              runner->concurrency = 3;
              runner->cost = absl::Microseconds(number % 3 * 40);
              if (number % 5 == 3) runner->warm_up = absl::InternalError("cold");
              models_.emplace_back(runner->catalogue());
              return runner;
            }};
  }

  RecommendRequest RandomRequest(Random& random) {
    RecommendRequest request{.user_id = kUsers[random() % kUsers.size()]};
    request.top_k = random() % 20 == 0 ? -1 : 5;
    request.priority = static_cast<Priority>(random() % 3);
    request.beam_widths = {static_cast<int>(5 + random() % 60)};
    request.trace = random() % 8 == 0;
    request.exclude_history = random() % 4 == 0;
    if (random() % 4 == 0) request.history = {{.item = 1 + random() % kStressItems}, {.item = 1'000'000}};
    if (random() % 4 == 0) request.eligibility.rule = {{"kind", {absl::StrCat(random() % 5)}}};
    if (random() % 4 == 0) request.eligibility.deny = {1 + random() % kStressItems};
    if (random() % 30 == 0) request.eligibility.restrict_to_allow = true;
    if (random() % 2 == 0) request.deadline = raw_->Now() + absl::Microseconds(int64_t(random() % 6000) - 300);
    if (random() % 3 == 0) request.deadline = raw_->Now() + absl::Minutes(10);
    return request;
  }

  void SubmitOne(Random& random, int depth) {
    auto asked = std::make_shared<Asked>();
    RecommendRequest request = RandomRequest(random);
    asked->user = request.user_id;
    asked->top_k = request.top_k;
    asked->may_be_cancelled = random() % 2 == 0;
    asked->floor = served_;
    if (random() % 10 == 0) {  // nobody listens
      ++unheard_;
      raw_->Submit(std::move(request), nullptr);
      return;
    }
    ++asked_;
    Engine::Canceller cancel =
        raw_->Submit(std::move(request), [this, asked, depth, alive = alive_, seed = random()](auto result) {
          EXPECT_EQ(asked->calls.fetch_add(1), 0) << "called twice";
          Check(*asked, result);
          Random own(seed);
          if (own() % 16 == 0) raw_->GetStatus();
          if (own() % 16 == 0) CancelOne(own);
          // Refusals come inside Submit: whoever asks again from them would never end.
          if (own() % 8 == 0 && depth < 3) SubmitOne(own, depth + 1);
          ++callbacks_;
        });
    asked->ceiling = asked_for_.load();
    if (!asked->may_be_cancelled) return;
    if (random() % 4 == 0) cancel();
    std::lock_guard lock(mu_);
    cancellers_.push_back(std::make_shared<Engine::Canceller>(std::move(cancel)));
  }

  // A code has its reason; that time ran out, or a queue was full, needs none.
  void Check(const Asked& asked, const absl::StatusOr<RecommendResult>& result) {
    const Code code = result.status().code();
    ++ended[static_cast<size_t>(code)];
    if (result.ok()) return CheckAnswer(asked, *result);
    const bool known = code == Code::kInvalidArgument ? asked.top_k < 0
                       : code == Code::kCancelled     ? asked.may_be_cancelled
                       : code == Code::kUnavailable   ? draining_.load()
                       : code == Code::kInternal      ? asked.user.starts_with("store") || asked.user.starts_with("bad")
                       : code == Code::kNotFound      ? asked.user == "store fails"
                                                 : code == Code::kDeadlineExceeded || code == Code::kResourceExhausted;
    EXPECT_TRUE(known) << asked.user << ": " << result.status();
  }

  // All of it is of one version, which served at some time between the call of Submit and its return.
  void CheckAnswer(const Asked& asked, const RecommendResult& answer) {
    EXPECT_EQ(answer.catalogue_version, "catalogue-of-" + answer.model_version);
    EXPECT_LE(answer.items.size(), 5u);
    EXPECT_TRUE(answer.items.empty() || !asked.user.starts_with("bad"))
        << asked.user;  // nothing eligible: no model ran
    for (const RecommendedItem& item : answer.items) {
      EXPECT_EQ(item.sid, ItemOf(item.item).sid);
      for (int level = 0; level < 3; ++level) {
        EXPECT_EQ(item.log_probs[level], FakeLogProb(asked.user + answer.model_version, level, item.sid[level]));
      }
    }
    int version = 0;
    ASSERT_TRUE(absl::SimpleAtoi(answer.model_version, &version));
    EXPECT_LE(version, asked_for_.load());
    if (const int ceiling = asked.ceiling; ceiling > 0) {
      EXPECT_LE(version, ceiling);
    }
    EXPECT_GE(version, rollbacks_ ? 1 : asked.floor);
  }

  void SubmitSome(uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 60; ++i) {
      SubmitOne(random, 0);
      if (random() % 4 == 0) CancelOne(random);
      if (random() % 4 == 0) Sleep(random, 500);
      const Event event{.item = 1 + random() % kStressItems, .timestamp_ms = int64_t(random() % 99)};
      EXPECT_TRUE(store_->kept.Append(kUsers[random() % 3], {&event, 1}).ok());
    }
  }

  void CancelOne(Random& random) {
    std::shared_ptr<Engine::Canceller> chosen;
    {
      std::lock_guard lock(mu_);
      if (!cancellers_.empty()) chosen = cancellers_[random() % cancellers_.size()];
    }
    if (chosen != nullptr) (*chosen)();
  }

  void CancelUntilOver(uint64_t seed) {
    for (Random random(seed); !over_.load(); Sleep(random, 300)) CancelOne(random);
  }

  void ReloadSome(uint64_t seed) {
    Random random(seed);
    for (int i = 0; i < 10; ++i) {
      const auto done = [this, alive = alive_](const absl::StatusOr<ModelVersion>& now) {
        ++reload_callbacks_;
        int version = 0;
        if (!now.ok()) return;
        ++reloaded;
        EXPECT_TRUE(absl::SimpleAtoi(now->model_version, &version));
        if (!rollbacks_) served_ = version;
        raw_->GetStatus();
      };
      ++reloads_asked_;
      if (rollbacks_ && random() % 3 == 0) {
        engine_->Rollback(done);
      } else if (random() % 8 == 0) {
        engine_->Reload("no number", done);
      } else {
        engine_->Reload(absl::StrCat(asked_for_.fetch_add(1) + 1), done);
      }
      EXPECT_GT(engine_->catalogue()->num_items(), 0u);
      EXPECT_GE(engine_->GetStatus().in_flight, 0);
      Sleep(random, 3000);
    }
  }

  // Who was accepted before it began has been called when it ends.
  void Drain() {
    draining_ = true;
    if (!engine_->Drain(raw_->Now() + absl::Microseconds(int64_t(random_() % 8000) - 1000))) left_ = true;
    EXPECT_TRUE(absl::IsUnavailable(engine_->Recommend({.user_id = "good"}).status()));
    ++unheard_;  // that one
  }

  void ExpectCounts() {
    const EngineStatus status = engine_->GetStatus();
    EXPECT_EQ(status.in_flight, 0);
    EXPECT_EQ(status.queued, 0);
    EXPECT_EQ(status.completed + status.failed + status.rejected, asked_ + unheard_);
    EXPECT_EQ(callbacks_.load(), asked_.load());
    EXPECT_GE(status.failed, status.expired);
    const scheduler::SchedulerStats stats = engine_->scheduler_stats();
    EXPECT_EQ(stats.accepted, stats.completed + stats.cancelled + stats.expired + stats.failed + stats.pushed_out);
    EXPECT_EQ(stats.executing, 0);
    EXPECT_EQ(stats.executing_rows, 0);
  }

  Random random_;
  const bool rollbacks_;
  const std::shared_ptr<MoodyStore> store_ = std::make_shared<MoodyStore>();
  const std::shared_ptr<int> alive_ = std::make_shared<int>();             // held by every callback
  std::vector<std::weak_ptr<const catalogue::CatalogueSnapshot>> models_;  // of one thread at a time
  std::atomic<uint64_t> asked_{0}, callbacks_{0}, unheard_{0};
  std::atomic<int> reloads_asked_{0}, reload_callbacks_{0};
  std::atomic<int> asked_for_{1}, served_{1};  // versions
  std::atomic<bool> draining_{false}, left_{false}, over_{false};
  std::mutex mu_;
  std::vector<std::shared_ptr<Engine::Canceller>> cancellers_;  // guarded by mu_
  std::unique_ptr<EngineCore> engine_;
  EngineCore* raw_ = nullptr;  // for callbacks, which run while the pointer above is reset
};

TEST(EngineStressTest, RandomSchedules) {
  const uint64_t seed = FromEnvironment("BEAMLINE_STRESS_SEED", std::random_device()());
  const int rounds = static_cast<int>(FromEnvironment("BEAMLINE_STRESS_ROUNDS", 40));
  std::printf("BEAMLINE_STRESS_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::array<int, 17> ended{};
  int reloaded = 0;
  for (int round = 0; round < rounds && !::testing::Test::HasFailure(); ++round) {
    SCOPED_TRACE(absl::StrCat("seed ", seed, ", round ", round));
    alarm(180);  // ends the process where the round stands still: no test can end threads that do
    Round one(seed + static_cast<uint64_t>(round));
    one.Run();
    for (size_t code = 0; code < ended.size(); ++code) ended[code] += one.ended[code];
    reloaded += one.reloaded;
  }
  alarm(0);
  for (size_t code = 0; code < ended.size(); ++code) {
    if (ended[code] > 0) std::printf("%s: %d\n", absl::StatusCodeToString(Code(code)).c_str(), ended[code]);
  }
  std::printf("reloads: %d\n", reloaded);
  if (rounds < 40) return;
  EXPECT_GT(ended[static_cast<size_t>(Code::kOk)], 0);
  EXPECT_GT(reloaded, 0);
}

}  // namespace
}  // namespace beamline::engine
