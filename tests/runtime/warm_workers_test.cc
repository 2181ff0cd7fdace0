// SPDX-License-Identifier: Apache-2.0
//
// Each worker of the cuda backend is warm before requests come, whichever of them a batch meets, over the emulator.
#include <filesystem>
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
    EngineCore::Parts parts{.clock = clock_, .preparation_threads = 0, .inline_execution = true};
    parts.options.bundle = Bundle(1);
    parts.options.default_beam_width = 32;  // as warm-ups have
    parts.options.max_beam_width = 32;
    parts.options.max_batch_requests = 2;
    parts.options.max_batch_rows = 64;
    parts.options.cost_measurement = absl::ZeroDuration();
    parts.source.identify = [](const std::string& bundle) { return runtime::IdentifyBundle(bundle); };
    parts.source.load = [this](const std::string& bundle, const std::string&) {
      runtime::ModelRunner::Parts runner;
      runner.context.backend = backend_.get();
      auto loaded = runtime::LoadRunnerOn(
          {.bundle = bundle, .workers = kWorkers, .context_cache_bytes = 0, .tuning_folder = folder_ / "tuning"},
          std::move(runner));
      if (loaded.ok()) runners_.push_back(loaded->get());
      return loaded;
    };
    auto engine = EngineCore::Create(std::move(parts));
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }
  void Reload(int number) {
    engine_->Reload(Bundle(number), [](const auto& version) { EXPECT_TRUE(version.ok()) << version.status(); });
    while (engine_->StepRepository()) {
    }
  }
  void Answer() {
    bool answered = false;
    engine_->Submit({.user_id = "a", .history = runtime::testing::TinyHistory(1, 64)}, [&](const auto& answer) {
      EXPECT_TRUE(answer.ok()) << answer.status();
      answered = true;
    });
    for (absl::Time again = engine_->Step(); again != absl::InfiniteFuture(); again = engine_->Step()) {
      if (again > clock_->Now()) clock_->Set(again);
    }
    EXPECT_TRUE(answered);
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
    Answer();
    EXPECT_EQ(worker.graphs.launches(), launched + 2) << "it ran there, an encode and a search, both from graphs";
    EXPECT_EQ(worker.graphs.captures(), captured);
    EXPECT_EQ(emulator::allocations, allocations);
  }
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
