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
using ::testing::Contains;
using ::testing::Not;

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
    parts.source.load = [this](const std::string& bundle) {
      runtime::ModelRunner::Parts runner;
      runner.context.backend = backend_.get();
      return runtime::LoadRunnerOn(
          {.bundle = bundle, .workers = kWorkers, .context_cache_bytes = 0, .tuning_folder = folder_ / "tuning"},
          std::move(runner));
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
  // Those that batches would get that ran at once now; they are busy while they live.
  std::vector<std::shared_ptr<backend::BatchResources>> Take() const {
    std::vector<std::shared_ptr<backend::BatchResources>> batches;
    for (int i = 0; i < kWorkers; ++i) batches.push_back(backend_->BeginBatch());
    return batches;
  }
  static Worker& WorkerOf(const std::shared_ptr<backend::BatchResources>& batch) {
    return static_cast<backend::cuda::CudaBatch&>(*batch).worker();
  }

  const fs::path folder_ = fs::path(::testing::TempDir()) / absl::StrCat("warm_workers_", ::getpid());
  const std::unique_ptr<backend::cuda::CudaBackend> backend_ = backend::MakeCudaTestBackend();
  const std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  std::unique_ptr<EngineCore> engine_;
};

TEST_F(WarmWorkersTest, AreWarmBeforeTheirFirstRequest) {
  Start();
  // A request on each of them, the other being busy, captures and allocates nothing.
  std::vector<const Worker*> old;
  for (int free = 0; free < kWorkers; ++free) {
    auto batches = Take();
    Worker& worker = WorkerOf(batches[free]);
    old.push_back(&worker);
    const int64_t captured = worker.graphs.captures(), launched = worker.graphs.launches();
    const size_t allocations = emulator::allocations;
    EXPECT_GT(captured, 0);
    batches.erase(batches.begin() + free);
    Answer();
    EXPECT_GT(worker.graphs.launches(), launched) << "it ran there";
    EXPECT_EQ(worker.graphs.captures(), captured);
    EXPECT_EQ(emulator::allocations, allocations);
  }

  // While a reload warms up, batches of the version that serves keep their workers; the next version's get those that
  // were warmed for it.
  auto busy = Take();
  Reload(2);
  busy.clear();
  for (const auto& batch : Take()) {
    EXPECT_THAT(old, Not(Contains(&WorkerOf(batch))));
    EXPECT_GT(WorkerOf(batch).graphs.captures(), 0);
  }
}

}  // namespace
}  // namespace beamline::engine
