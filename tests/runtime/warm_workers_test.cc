// SPDX-License-Identifier: Apache-2.0
//
// Each worker of the cuda backend is warm before requests come, whichever of them a batch meets, over the emulator.
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/cuda/cuda_batch.h"
#include "backend/test_context.h"
#include "engine/cost_measurement.h"
#include "engine/engine_core.h"
#include "runtime/bundle_folder.h"
#include "runtime/load_model.h"
#include "runtime/tiny_bundle.h"

namespace beamline::engine {
namespace {

namespace fs = std::filesystem;
using backend::cuda::Worker;
using ::testing::UnorderedElementsAreArray;

constexpr int kWorkers = 2;

class WarmWorkersTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(folder_);
    for (int number = 1; number <= 2; ++number) {
      const auto manifest = runtime::testing::WriteTinyBundle(
          Bundle(number), {.seed = static_cast<uint64_t>(number), .feature_width = 8});
      ASSERT_TRUE(manifest.ok()) << manifest.status();
    }
  }
  void TearDown() override {
    engine_.reset();
    fs::remove_all(folder_);
  }

  std::string Bundle(int number) const { return folder_ / absl::StrCat(number); }
  void Start() {
    backend::Context context;
    context.backend = backend_.get();
    engine_ = Make(context);
  }
  std::unique_ptr<EngineCore> Make(const backend::Context& context) {
    EngineCore::Parts parts{.clock = clock_, .preparation_threads = 0, .inline_execution = true};
    parts.options.bundle = Bundle(1);
    parts.options.default_beam_width = 32;  // as warm-ups have
    parts.options.max_beam_width = 32;
    parts.options.max_batch_requests = 2;
    parts.options.max_batch_rows = 64;
    parts.options.cost_measurement = absl::ZeroDuration();
    parts.source.identify = [](const std::string& bundle) { return runtime::IdentifyBundle(bundle); };
    parts.source.load = [this, context](const std::string& bundle, const std::string&) {
      runtime::ModelRunner::Parts runner;
      runner.context = context;
      auto loaded = runtime::LoadRunnerOn(
          {.bundle = bundle, .workers = kWorkers, .context_cache_bytes = 0, .tuning_folder = folder_ / "tuning"},
          std::move(runner));
      if (loaded.ok()) runners_.push_back(loaded->get());
      return loaded;
    };
    auto engine = EngineCore::Create(std::move(parts));
    EXPECT_TRUE(engine.ok()) << engine.status();
    return engine.ok() ? *std::move(engine) : nullptr;
  }
  void Reload(int number) {
    engine_->Reload(Bundle(number), [](const auto& version) { EXPECT_TRUE(version.ok()) << version.status(); });
    while (engine_->StepRepository()) {
    }
  }
  RecommendResult Answer(EngineCore& engine, RecommendRequest request) {
    absl::StatusOr<RecommendResult> result = absl::UnknownError("not answered");
    engine.Submit(std::move(request), [&](auto answer) { result = std::move(answer); });
    for (absl::Time again = engine.Step(); again != absl::InfiniteFuture(); again = engine.Step()) {
      if (again > clock_->Now()) clock_->Set(again);
    }
    EXPECT_TRUE(result.ok()) << result.status();
    return result.value_or(RecommendResult());
  }
  // Those that batches of that model would get that ran at once now; they are busy while they are held.
  std::vector<std::shared_ptr<Worker>> HoldAll(int model) const {
    std::vector<std::shared_ptr<Worker>> held;
    for (int i = 0; i < kWorkers; ++i) held.push_back(std::static_pointer_cast<Worker>(runners_[model]->HoldWorker()));
    return held;
  }

  const fs::path folder_ = fs::path(::testing::TempDir()) / absl::StrCat("warm_workers_", ::getpid());
  const std::unique_ptr<backend::cuda::CudaBackend> backend_ = backend::MakeCudaTestBackend();
  std::vector<runtime::Runner*> runners_;  // of the models that were loaded
  const std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  std::unique_ptr<EngineCore> engine_;
};

TEST_F(WarmWorkersTest, AreWarmBeforeTheirFirstRequest) {
  Start();
  Reload(2);
  for (int free = 0; free < kWorkers; ++free) {
    // A request on this one, the others being busy, captures and allocates nothing.
    std::vector<std::shared_ptr<Worker>> held = HoldAll(1);
    const Worker& worker = *held[free];
    const int64_t captured = worker.graphs.captures(), launched = worker.graphs.launches();
    const size_t allocations = emulator::allocations;
    EXPECT_GT(captured, 0);
    held.erase(held.begin() + free);
    Answer(*engine_, {.user_id = "a", .history = runtime::testing::TinyHistory(1, 64)});
    EXPECT_EQ(worker.graphs.launches(), launched + 2) << "it ran there, an encode and a search, both from graphs";
    EXPECT_EQ(worker.graphs.captures(), captured);
    EXPECT_EQ(emulator::allocations, allocations);
  }
}

// Costs, by which requests are refused, are of batches as they will run, of sizes that no other warm-up had, too.
TEST_F(WarmWorkersTest, CostsAreOfGraphs) {
  runtime::ModelRunner::Parts parts;
  parts.context.backend = backend_.get();
  const auto runner = runtime::LoadRunnerOn(
      {.bundle = Bundle(1), .context_cache_bytes = 0, .tuning_folder = folder_ / "tuning"}, std::move(parts));
  ASSERT_TRUE(runner.ok()) << runner.status();
  const auto costs =
      MeasureCosts(**runner, {.beam_width = 4, .max_requests = 4, .max_rows = 16, .budget = absl::Seconds(1)}, *clock_);
  ASSERT_TRUE(costs.ok()) << costs.status();
  EXPECT_EQ(costs->size(), 2u * 3) << "of one, two and four requests";
  EXPECT_GE((*runner)->GetDevicePasses()->graph, 2 * 3);
}

// What is served comes from graphs, of requests of all kinds, and is what the oracle answers.
TEST_F(WarmWorkersTest, GraphsGiveTheOraclesLists) {
  Start();
  const absl::StatusOr<backend::Context> oracle = backend::MakeContext("cpu", "fp32", "aten");
  ASSERT_TRUE(oracle.ok()) << oracle.status();
  const std::unique_ptr<EngineCore> other = Make(*oracle);
  ASSERT_NE(other, nullptr);
  const DevicePasses before = *engine_->GetDevicePasses();
  constexpr int kRequests = 24;
  for (int i = 0; i < kRequests; ++i) {
    RecommendRequest request{.history = runtime::testing::TinyHistory(i, 8 + 7 * (i % 8)), .top_k = 5};
    request.exclude_history = i % 3 == 1;
    if (i % 4 == 2) request.eligibility.rule = {{.key = "region", .any_of = {"DE"}}};
    if (i % 4 == 3) request.eligibility.deny = {1000, 1017, 1040};
    const RecommendResult expected = Answer(*other, request), answer = Answer(*engine_, request);
    ASSERT_EQ(answer.items.size(), expected.items.size()) << i;
    ASSERT_FALSE(answer.items.empty()) << i;
    for (size_t rank = 0; rank < answer.items.size(); ++rank) {
      EXPECT_EQ(answer.items[rank].item, expected.items[rank].item) << i << " rank " << rank;
      EXPECT_NEAR(answer.items[rank].score, expected.items[rank].score, 1e-4) << i << " rank " << rank;
    }
  }
  const DevicePasses after = *engine_->GetDevicePasses();
  // Two a request. Lengths that warm-up did not have are enqueued once and captured once.
  EXPECT_EQ((after.graph + after.captured + after.enqueued) - (before.graph + before.captured + before.enqueued),
            2 * kRequests);
  EXPECT_GE(after.graph - before.graph, 2 * kRequests - 4 * 4);
}

// Of allow lists their length, not which codes the items share: there would be a graph for nearly every one of them.
TEST_F(WarmWorkersTest, AllowListsOfOneLengthShareAGraph) {
  constexpr size_t kItems = 6;
  Start();
  std::map<uint32_t, std::map<Sid, ItemId>> by_first_code;
  const auto catalogue = runners_[0]->catalogue();
  for (uint32_t i = 0; i < catalogue->num_items(); ++i) {
    const Sid sid = *catalogue->Encode(catalogue->item_id(i));
    by_first_code[sid[0]].emplace(sid, catalogue->item_id(i));
  }
  std::vector<ItemId> near, far;  // of one first code, and of as many
  ASSERT_GE(by_first_code.size(), kItems);
  ASSERT_GE(by_first_code.begin()->second.size(), kItems);
  for (const auto& [sid, item] : by_first_code.begin()->second) near.push_back(item);
  for (const auto& [code, items] : by_first_code) far.push_back(items.begin()->second);
  const auto passes_of = [&](std::vector<ItemId> allow) {
    allow.resize(kItems);
    const DevicePasses before = *engine_->GetDevicePasses();
    const RecommendResult answer =
        Answer(*engine_, {.history = runtime::testing::TinyHistory(1, 64),
                          .top_k = 5,
                          .eligibility = {.allow = std::move(allow), .restrict_to_allow = true}});
    EXPECT_EQ(answer.items.size(), 5u);
    return engine_->GetDevicePasses()->graph - before.graph;
  };
  passes_of(near);  // op by op
  passes_of(near);  // captured
  EXPECT_EQ(passes_of(near), 2) << "an encode and a search";
  EXPECT_EQ(passes_of(far), 2);
}

TEST_F(WarmWorkersTest, AReloadTakesNothingOfTheVersionThatServes) {
  Start();
  struct Seen {
    const Worker* worker;
    int64_t captures, launches;
    bool operator==(const Seen&) const = default;
  };
  const auto look = [&] {
    std::vector<Seen> seen;
    for (const auto& worker : HoldAll(0)) {
      seen.push_back({worker.get(), worker->graphs.captures(), worker->graphs.launches()});
    }
    return seen;
  };
  const std::vector<Seen> before = look();
  Reload(2);  // while nobody asks: all workers are free
  EXPECT_THAT(look(), UnorderedElementsAreArray(before)) << "a rollback finds them as they were";
}

}  // namespace
}  // namespace beamline::engine
