// SPDX-License-Identifier: Apache-2.0
//
// Models swapped beneath requests, over fake runners: what a request was pinned to answers it, a refused bundle changes
// nothing, the next version is warmed up with what users asked, and under load nobody notices.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <future>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "engine/engine_core.h"
#include "engine/fake_runner.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;
using Code = absl::StatusCode;

std::unique_ptr<FakeRunner> RunnerOf(const std::string& version, int items = 150) {
  auto runner = std::make_unique<FakeRunner>(
      MakeCatalogue(items, absl::StrCat("catalogue-of-", absl::StripSuffix(version, "-retrained"))));
  runner->info_.version = runner->salt = version;
  runner->cost = absl::ZeroDuration();
  return runner;
}

// A bundle's name is its version; "cold" fails in the warm-up, "other-codebook" has one, and four throw. "v-retrained"
// has the catalogue of "v".
RunnerSource Versions(std::vector<FakeRunner*>* loaded = nullptr) {
  return {.identify = [](const std::string& bundle) -> absl::StatusOr<std::string> {
            if (bundle == "unreadable") throw std::length_error("cut off\nframe #0");
            return bundle;
          },
          .load = [loaded](const std::string& bundle,
                           const std::string&) -> absl::StatusOr<std::unique_ptr<runtime::Runner>> {
            auto runner = RunnerOf(bundle);
            if (bundle == "too-large") throw std::bad_alloc();
            if (bundle == "odd-sizes") throw std::runtime_error("sizes do not match\nframe #0");
            if (bundle == "large-warm-up") runner->throw_in_warm_up = true, runner->estimate = "weights 1.5 MB";
            if (bundle == "broken") return absl::DataLossError("broken/items: was damaged");
            if (bundle == "cold") runner->warm_up = absl::InternalError("non_finite_logits");
            if (bundle == "other-codebook") runner->info_.codebook_fingerprint = "other";
            if (loaded != nullptr) loaded->push_back(runner.get());
            return runner;
          }};
}

class ReloadTest : public ::testing::Test {
 protected:
  ReloadTest() {
    auto engine = EngineCore::Create({.options = {.bundle = "v1"},
                                      .source = Versions(&loaded_),
                                      .clock = clock_,
                                      .preparation_threads = 0,
                                      .inline_execution = true});
    EXPECT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  void Submit(RecommendRequest request) {
    engine_->Submit(std::move(request), [this](auto result) { answers_.push_back(std::move(result)); });
  }
  void StepToTheEnd() {
    for (absl::Time again = engine_->Step(); again != absl::InfiniteFuture(); again = engine_->Step()) {
      if (again > clock_->Now()) clock_->Set(again);
    }
  }
  std::vector<std::string> RunAll() {
    StepToTheEnd();
    std::vector<std::string> versions;
    for (const auto& answer : answers_) {
      EXPECT_TRUE(answer.ok()) << answer.status();
      EXPECT_EQ(answer->catalogue_version, "catalogue-of-" + answer->model_version);
      versions.push_back(answer->model_version);
    }
    answers_.clear();
    return versions;
  }
  absl::StatusOr<ModelVersion> Finish(absl::StatusOr<ModelVersion>* answer) {
    while (engine_->StepRepository()) {
    }
    return *answer;
  }
  absl::StatusOr<ModelVersion> Reload(const std::string& bundle) {
    absl::StatusOr<ModelVersion> answer = absl::UnknownError("no callback");
    engine_->Reload(bundle, [&](auto result) { answer = std::move(result); });
    return Finish(&answer);
  }
  absl::StatusOr<ModelVersion> Rollback() {
    absl::StatusOr<ModelVersion> answer = absl::UnknownError("no callback");
    engine_->Rollback([&](auto result) { answer = std::move(result); });
    return Finish(&answer);
  }

  std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  std::vector<FakeRunner*> loaded_;
  std::unique_ptr<EngineCore> engine_;
  std::vector<absl::StatusOr<RecommendResult>> answers_;
};

TEST_F(ReloadTest, ARequestIsAnsweredByTheVersionItCameTo) {
  Submit({.user_id = "a"});
  ASSERT_TRUE(Reload("v2").ok());
  Submit({.user_id = "b"});
  ASSERT_TRUE(Reload("v3").ok());
  Submit({.user_id = "c"});
  // Three versions in the queue, none of them in one batch with another: the fake runners look at every job.
  EXPECT_THAT(RunAll(), ::testing::UnorderedElementsAre("v1", "v2", "v3"));
  EXPECT_EQ(engine_->scheduler_stats().decode_batches, 3u);
  EXPECT_EQ(engine_->GetStatus().model_version, "v3");
  EXPECT_EQ(engine_->catalogue()->version(), "catalogue-of-v3");
  std::vector<std::string> catalogues;
  for (const ModelVersion& version : engine_->GetStatus().versions) catalogues.push_back(version.catalogue_version);
  EXPECT_THAT(catalogues, ::testing::IsSupersetOf({"catalogue-of-v2", "catalogue-of-v3"}));
}

TEST_F(ReloadTest, TheOldVersionGoesWithItsLastRequest) {
  Submit({.user_id = "a"});
  ASSERT_TRUE(Reload("v2").ok());
  ASSERT_TRUE(Reload("v3").ok());
  const auto state = [&] {
    while (engine_->StepRepository()) {
    }
    return engine_->GetStatus().versions[0].state;
  };
  EXPECT_EQ(state(), "draining");
  EXPECT_THAT(RunAll(), ::testing::ElementsAre("v1"));
  EXPECT_EQ(state(), "unloaded");
}

TEST_F(ReloadTest, TheCatalogueIsAsOldAsTheFirstModelThatBroughtIt) {
  const absl::Time first = engine_->GetStatus().catalogue_since;
  const auto later = [&] { clock_->Advance(absl::Hours(1)); };
  later();
  ASSERT_TRUE(Reload("v1-retrained").ok());
  EXPECT_EQ(engine_->GetStatus().last_swap, first + absl::Hours(1));
  EXPECT_EQ(engine_->GetStatus().catalogue_since, first);
  later();
  ASSERT_TRUE(Reload("v2").ok());
  EXPECT_EQ(engine_->GetStatus().catalogue_since, first + absl::Hours(2));
}

TEST_F(ReloadTest, ARefusedBundleChangesNothing) {
  EXPECT_THAT(Reload("broken").status().ToString(), HasSubstr("items: was damaged"));
  EXPECT_THAT(Reload("cold").status().ToString(), HasSubstr("non_finite_logits"));
  const absl::Status other = Reload("other-codebook").status();
  EXPECT_EQ(other.code(), Code::kFailedPrecondition);
  EXPECT_THAT(other.message(), HasSubstr("codebook"));
  Submit({.user_id = "a"});
  EXPECT_THAT(RunAll(), ::testing::ElementsAre("v1"));
  const EngineStatus status = engine_->GetStatus();
  EXPECT_EQ(status.models_refused, 3u);
  ASSERT_THAT(status.versions, SizeIs(4));
  EXPECT_EQ(status.versions[2].state, "refused");
  EXPECT_THAT(status.versions[2].error, HasSubstr("failed in the warm-up: non_finite_logits"));
}

// The allocator and the tensor library throw; on the repository's thread nobody else would catch it.
TEST_F(ReloadTest, ALoadThatThrowsIsARefusal) {
  const absl::Status large = Reload("too-large").status();
  EXPECT_EQ(large.code(), Code::kResourceExhausted) << large;
  EXPECT_EQ(large.message(), "too-large: loading: out of memory");
  EXPECT_EQ(Reload("odd-sizes").status(), absl::InternalError("odd-sizes: loading failed: sizes do not match"));
  EXPECT_THAT(
      Reload("large-warm-up").status().message(),
      HasSubstr("failed in the warm-up: warm-up: out of memory; estimated before, without batches: weights 1.5 MB ("));
  EXPECT_THAT(Reload("unreadable").status().message(), HasSubstr("unreadable: reading its manifest failed: cut off"));
  Submit({.user_id = "a"});
  EXPECT_THAT(RunAll(), ::testing::ElementsAre("v1"));
  EXPECT_EQ(engine_->GetStatus().models_refused, 4u);
}

TEST_F(ReloadTest, RollsBack) {
  EXPECT_EQ(Rollback().status().code(), Code::kFailedPrecondition);
  ASSERT_TRUE(Reload("v2").ok());
  const auto back = Rollback();
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->model_version, "v1");
  Submit({.user_id = "a"});
  EXPECT_THAT(RunAll(), ::testing::ElementsAre("v1"));
  EXPECT_THAT(loaded_, SizeIs(2));
  EXPECT_EQ(engine_->GetStatus().rollbacks, 1u);
}

TEST_F(ReloadTest, TheNextVersionIsWarmedUpWithWhatUsersAsked) {
  EXPECT_THAT(loaded_[0]->warmed, SizeIs(0));
  for (int i = 0; i < 20; ++i) {
    RecommendRequest request;
    request.user_id = absl::StrCat("user ", i);
    request.history = {{.item = 3}};
    request.beam_widths = {7};
    request.deadline = clock_->Now() + absl::Hours(1);
    Submit(std::move(request));
    RunAll();
    clock_->Advance(absl::Milliseconds(i < 2 ? 1 : 500));  // the second and third come too soon after the first
  }
  ASSERT_TRUE(Reload("v2").ok());
  const std::vector<RecommendRequest>& warmed = loaded_[1]->warmed;
  ASSERT_THAT(warmed, SizeIs(8));  // the newest
  EXPECT_EQ(warmed.back().user_id, "user 19");
  EXPECT_EQ(warmed.back().history[0].item, 3u);
  EXPECT_THAT(warmed.back().beam_widths, ::testing::ElementsAre(7, 7, 7));
}

// As the server's self-tests while nobody asks: a night of them must not leave them alone to warm up the morning's
// model.
TEST_F(ReloadTest, WhatNobodyAskedTakesNoPlaceOfWhatUsersAsked) {
  for (int i = 0; i < 20; ++i) {
    Submit(i == 0 ? RecommendRequest{.user_id = "user"} : RecommendRequest{.request_id = "self-test"});
    RunAll();
    clock_->Advance(absl::Milliseconds(500));
  }
  ASSERT_TRUE(Reload("v2").ok());
  ASSERT_THAT(loaded_[1]->warmed, SizeIs(1));
  EXPECT_EQ(loaded_[1]->warmed[0].user_id, "user");
}

// One that fails would fail on every version after, and refuse them all.
TEST_F(ReloadTest, WhatWasNotAnsweredWarmsUpNothing) {
  for (const char* user : {"bad decode", "good"}) {
    RecommendRequest request;
    request.user_id = user;
    request.history = {{.item = 3}};
    request.deadline = clock_->Now() + absl::Hours(1);
    Submit(std::move(request));
    StepToTheEnd();
    EXPECT_EQ(answers_.back().ok(), user == std::string("good"));
    clock_->Advance(absl::Milliseconds(500));
  }
  ASSERT_TRUE(Reload("v2").ok());
  ASSERT_THAT(loaded_[1]->warmed, SizeIs(1));
  EXPECT_EQ(loaded_[1]->warmed[0].user_id, "good");
}

TEST(ModelLoaderTest, CompilesTheRulesInUse) {
  EngineOptions options;
  options.score_rule = ScoreRule::kLegal;
  const RequestRecorder recorder;
  const RealClock clock;
  ModelLoader loader(Versions(), &options, &recorder, &clock);
  const auto first = loader.Load("v1", "v1"), second = loader.Load("v2", "v2");
  ASSERT_TRUE(first.ok() && second.ok());
  const auto& old_version = static_cast<const ServingModel&>(**first);
  const auto& new_version = static_cast<const ServingModel&>(**second);
  EXPECT_NE(old_version.group, new_version.group);
  const std::vector<TagClause> german = {{"region", {"DE"}}}, second_kind = {{"kind", {"2"}}};
  ASSERT_TRUE(old_version.rules->Get(german).ok());
  ASSERT_TRUE(old_version.rules->Get(second_kind).ok());
  ASSERT_TRUE(loader.WarmUp(**second, first->get()).ok());
  EXPECT_EQ(new_version.rules->stats().rules, 2);
  EXPECT_EQ(static_cast<const FakeRunner&>(*new_version.runner).warmed_rule, ScoreRule::kLegal);
  ASSERT_TRUE(new_version.rules->Get(german).ok());
  EXPECT_EQ(new_version.rules->stats().hits, 1u);
}

// They are run together, too: no batch that serving would not form, and none that another model's widths are in.
TEST(ModelLoaderTest, WhatUsersAskedIsNoMoreThanABatch) {
  RequestRecorder recorder;
  absl::Time now;
  const auto add = [&](const char* user, std::vector<int> widths) {
    recorder.Add({.user_id = user, .beam_widths = std::move(widths)}, now);
    now += absl::Seconds(1);
  };
  add("oldest", {1});
  add("two levels", {9, 9});
  add("three levels", {1, 9, 5});
  add("too wide", {92});
  add("new", {40});
  add("newest", {50});
  const auto warmed_with = [&](int max_batch_requests) {
    EngineOptions options;
    options.max_batch_rows = 99;
    options.max_batch_requests = max_batch_requests;
    const RealClock clock;
    ModelLoader loader(Versions(), &options, &recorder, &clock);
    const auto model = loader.Load("v1", "v1");
    EXPECT_TRUE(model.ok() && loader.WarmUp(**model, nullptr).ok());
    std::vector<std::string> users;
    for (const RecommendRequest& request :
         static_cast<FakeRunner&>(*static_cast<ServingModel&>(**model).runner).warmed) {
      users.push_back(request.user_id);
    }
    return users;
  };
  EXPECT_THAT(warmed_with(64), ::testing::ElementsAre("three levels", "new", "newest"));
  EXPECT_THAT(warmed_with(2), ::testing::ElementsAre("new", "newest"));
}

// What a version answers to a user without rules: the first item of each SID, SIDs by score.
std::vector<ItemId> Expected(const std::string& version, const std::string& user, int top_k) {
  const auto snapshot = MakeCatalogue(150, version);
  std::vector<runtime::Hypothesis> all;
  for (uint32_t leaf = 0; leaf < snapshot->num_leaves(); ++leaf) {
    all.push_back(FakeHypothesis(user + version, leaf, snapshot->SidOfLeaf(leaf)));
  }
  std::sort(all.begin(), all.end(), Before);
  std::vector<ItemId> items;
  for (int i = 0; i < top_k; ++i) items.push_back(snapshot->item_id(snapshot->LeafItems(all[i].leaf).begin));
  return items;
}

double Percentile99(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[(values.size() - 1) * 99 / 100];
}

// Closed-loop clients; quiet stretches and stretches with a load of 40 ms of CPU take turns, so that other work on the
// machine weighs on both alike.
class Load {
 public:
  explicit Load(EngineCore* engine) {
    for (int client = 0; client < 4; ++client) {
      clients_.emplace_back([this, engine, client] {
        const std::string user = absl::StrCat("user ", client);
        while (!stop_) Ask(*engine, user);
      });
    }
  }
  void Join() {
    stop_ = true;
    for (std::thread& client : clients_) client.join();
  }
  std::atomic<int> phase{0};  // 0: quiet, 1: reloading
  std::atomic<int> failed{0}, mixed{0};
  std::map<std::string, int> versions;    // after Join, as the next
  std::array<std::vector<double>, 2> ms;  // by phase

 private:
  void Ask(EngineCore& engine, const std::string& user) {
    const int began_in = phase;
    const absl::Time start = absl::Now();
    const auto answer = engine.Recommend({.user_id = user, .top_k = 5});
    const double took = absl::ToDoubleMilliseconds(absl::Now() - start);
    if (!answer.ok()) {
      ++failed;
      return;
    }
    std::vector<ItemId> items;
    for (const RecommendedItem& item : answer->items) items.push_back(item.item);
    std::lock_guard lock(mu_);
    const auto [expected, unknown] = expected_.try_emplace(answer->model_version + "/" + user);
    if (unknown) expected->second = Expected(answer->model_version, user, 5);
    if (items != expected->second || answer->catalogue_version != "catalogue-of-" + answer->model_version) ++mixed;
    ++versions[answer->model_version];
    ms[began_in].push_back(took);
  }

  std::atomic<bool> stop_{false};
  std::mutex mu_;
  std::map<std::string, std::vector<ItemId>> expected_;
  std::vector<std::thread> clients_;
};

TEST(ReloadUnderLoadTest, TenReloadsAndARollback) {
  RunnerSource source = Versions();
  source.load = [load = source.load](const std::string& bundle, const std::string& digest) {
    for (const absl::Time end = absl::Now() + absl::Milliseconds(40); absl::Now() < end;) {
    }
    auto runner = load(bundle, digest);
    static_cast<FakeRunner&>(**runner).cost = absl::Microseconds(200);
    return runner;
  };
  auto engine =
      EngineCore::Create({.options = {.bundle = "v0", .default_deadline = absl::Minutes(1)}, .source = source});
  ASSERT_TRUE(engine.ok()) << engine.status();
  Load load(engine->get());
  const auto stretch = std::chrono::milliseconds(120);
  for (int round = 1; round <= 11; ++round) {
    load.phase = 0;
    std::this_thread::sleep_for(stretch);
    load.phase = 1;
    std::promise<absl::StatusOr<ModelVersion>> done;
    const auto set = [&](absl::StatusOr<ModelVersion> result) { done.set_value(std::move(result)); };
    if (round == 11) {
      (*engine)->Rollback(set);
    } else {
      (*engine)->Reload(absl::StrCat("v", round), set);
    }
    const auto result = done.get_future().get();
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_EQ(result->model_version, absl::StrCat("v", round == 11 ? 9 : round));
    std::this_thread::sleep_for(stretch);
  }
  load.Join();
  EXPECT_EQ(load.failed, 0);
  EXPECT_EQ(load.mixed, 0);
  EXPECT_THAT(load.versions, SizeIs(11));
  const double quiet = Percentile99(load.ms[0]), reloading = Percentile99(load.ms[1]);
  std::cout << "p99 quiet " << quiet << " ms (" << load.ms[0].size() << "), with reloads " << reloading << " ms ("
            << load.ms[1].size() << "), ratio " << reloading / quiet << std::endl;
  RecordProperty("p99_ratio", std::to_string(reloading / quiet));
  // Not the goal (1.2 on a quiet machine) but what a load that blocks requests would exceed wherever the tests run.
  EXPECT_LT(reloading, 3 * quiet + 30);
  EXPECT_TRUE((*engine)->Drain(absl::InfiniteFuture()));
}

}  // namespace
}  // namespace beamline::engine
