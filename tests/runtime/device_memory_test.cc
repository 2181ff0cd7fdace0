// SPDX-License-Identifier: Apache-2.0
//
// Models on a device that has too little memory for them, over the emulator: refused by the estimate before anything is
// allocated, or where memory runs out, with all of it given back; what served before serves, and the next look tries
// again.
#include "backend/cuda/device_memory.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/test_context.h"
#include "engine/engine_core.h"
#include "runtime/bundle_folder.h"
#include "runtime/load_model.h"
#include "runtime/tiny_bundle.h"

namespace beamline::engine {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using Code = absl::StatusCode;

constexpr size_t kAmple = size_t{64} << 30;

class DeviceMemoryTest : public ::testing::Test {
 protected:
  DeviceMemoryTest() : folder_(fs::path(::testing::TempDir()) / absl::StrCat("device_memory_", ::getpid())) {
    fs::remove_all(folder_);
    fs::create_directories(folder_ / "models");
    Publish(1);
  }
  ~DeviceMemoryTest() override {
    emulator::memory = kAmple;
    emulator::allocations_allowed = ~size_t{0};
    engine_.reset();
    fs::remove_all(folder_);
  }

  void Publish(int number) {
    const auto manifest = runtime::testing::WriteTinyBundle(
        folder_ / "new", {.seed = static_cast<uint64_t>(number), .feature_width = 8, .model_version = Version(number)});
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    fs::rename(folder_ / "new", Path(number));
  }
  static std::string Version(int number) { return absl::StrCat("v", number); }
  std::string Path(int number) const { return folder_ / "models" / absl::StrCat(number); }

  runtime::RunnerOptions Options() const {
    return {.bundle = Path(1), .context_cache_bytes = 1 << 20, .tuning_folder = folder_ / "tuning"};
  }
  absl::StatusOr<std::unique_ptr<runtime::Runner>> Load(const runtime::RunnerOptions& options) const {
    runtime::ModelRunner::Parts parts;
    parts.context.backend = backend_.get();
    return runtime::LoadRunnerOn(options, std::move(parts));
  }
  // Of at most `requests` in a batch.
  absl::StatusOr<std::unique_ptr<EngineCore>> Start(int requests = 2) {
    EngineCore::Parts parts{.clock = clock_, .preparation_threads = 0, .inline_execution = true};
    parts.options.model_folder = folder_ / "models";
    parts.options.default_beam_width = 4;
    parts.options.max_beam_width = 32;
    parts.options.max_batch_requests = requests;
    parts.options.max_batch_rows = 32 * requests;
    parts.options.cost_measurement = absl::ZeroDuration();
    parts.source.identify = [](const std::string& bundle) { return runtime::IdentifyBundle(bundle); };
    parts.source.load = [this](const std::string& bundle, const std::string&) {
      runtime::RunnerOptions options = Options();
      options.bundle = bundle;
      return Load(options);
    };
    return EngineCore::Create(std::move(parts));
  }
  // What the watched folder's next looks do.
  void LookAfter(absl::Duration time) {
    clock_->Advance(time);
    while (engine_->StepRepository()) {
    }
  }
  std::string Answering() {
    std::string version;
    engine_->Submit({.user_id = "a", .history = runtime::testing::TinyHistory(1, 5)},
                    [&](auto answer) { version = answer.ok() ? answer->model_version : answer.status().ToString(); });
    for (absl::Time again = engine_->Step(); again != absl::InfiniteFuture(); again = engine_->Step()) {
      if (again > clock_->Now()) clock_->Set(again);
    }
    return version;
  }

  const fs::path folder_;
  std::unique_ptr<backend::cuda::CudaBackend> backend_ = backend::MakeCudaTestBackend();
  std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  std::unique_ptr<EngineCore> engine_;
};

TEST_F(DeviceMemoryTest, TheEstimateRefusesBeforeAnythingIsAllocated) {
  emulator::memory = emulator::allocated + (size_t{20} << 20);
  const size_t before = emulator::allocations;
  const absl::Status refused = Load(Options()).status();
  EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr(Path(1)),
                    HasSubstr("of the device's memory (weights 0.2 MB, context cache 1.0 MB, the "
                              "catalogue's trie, at most 0.0 MB, workspaces 33.6 MB), 21.0 MB are free"),
                    HasSubstr("use a narrower dtype")));
  EXPECT_EQ(emulator::allocations, before);
  emulator::memory = kAmple;
  const absl::Status fits = Load(Options()).status();
  EXPECT_TRUE(fits.ok()) << fits;
}

// Contexts of an earlier model had other sizes than any of the next will have.
TEST_F(DeviceMemoryTest, WhatEarlierContextsLeaveIsFree) {
  const size_t before = emulator::allocated;
  backend::Context shared;
  shared.backend = backend_.get();
  shared.workers = backend_->NewWorkers();
  {
    backend::Context ctx = backend::BeginBatch(shared);
    const at::Tensor order = backend::UploadInts(ctx, std::vector<int32_t>(4096, 0), {1, 4096});
    const at::Tensor x = backend::UploadFloats(ctx, std::vector<float>(4096 * 1024), {1, 4096, 1024});
    backend::TakeVisible(ctx, {x}, order, 0);
  }
  shared.workers.reset();
  emulator::memory = before + (size_t{40} << 20);
  const absl::Status fits = Load(Options()).status();
  EXPECT_TRUE(fits.ok()) << fits;
}

TEST_F(DeviceMemoryTest, TheHostIsNotChargedForWhatIsOnTheDevice) {
  runtime::RunnerOptions options = Options();
  options.context_cache_bytes = int64_t{1} << 30;
  options.memory_limit_bytes = int64_t{100} << 20;
  const absl::Status on_device = Load(options).status();
  EXPECT_TRUE(on_device.ok()) << on_device;
  EXPECT_EQ(runtime::LoadRunner(options).status().code(), Code::kResourceExhausted) << "on the CPU";
  options.memory_limit_bytes = 1000;
  EXPECT_THAT(Load(options).status().ToString(), AllOf(HasSubstr("reading the weights"), HasSubstr("is the limit")));
}

TEST_F(DeviceMemoryTest, AVersionThatRunsOutOfMemoryWhileItLoadsIsTriedAgain) {
  auto started = Start();
  ASSERT_TRUE(started.ok()) << started.status();
  engine_ = *std::move(started);
  EXPECT_EQ(Answering(), Version(1));
  backend_->ReleaseFreeMemory();  // as a load does
  const size_t before = emulator::allocated;

  Publish(2);
  emulator::allocations_allowed = emulator::allocations + 5;  // as where others take the memory meanwhile
  LookAfter(absl::Seconds(6));
  const EngineStatus status = engine_->GetStatus();
  ASSERT_EQ(status.models_refused, 1u);
  EXPECT_THAT(status.versions.back().error,
              AllOf(HasSubstr("out of memory: cuda: "), HasSubstr("of device memory, "),
                    HasSubstr("estimated before: on the device weights 0.2 MB, context cache 1.0 MB")));
  EXPECT_EQ(emulator::allocated, before) << "all is given back";
  EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "for the next launch to tell";

  emulator::allocations_allowed = ~size_t{0};
  EXPECT_EQ(Answering(), Version(1));
  LookAfter(absl::Seconds(6));
  EXPECT_EQ(engine_->GetStatus().models_refused, 1u) << "not at once";
  EXPECT_EQ(Answering(), Version(1));
  LookAfter(absl::Seconds(31));
  EXPECT_EQ(Answering(), Version(2));
}

TEST_F(DeviceMemoryTest, TheLargestBatchThatDoesNotFitRefusesTheVersion) {
  const size_t free = emulator::allocated;
  auto of_two = Start(2);
  ASSERT_TRUE(of_two.ok()) << of_two.status();
  const size_t taken = emulator::allocated - free;
  of_two->reset();
  EXPECT_LT(emulator::allocated - free, size_t{1} << 20) << "workspaces end with their model";
  emulator::memory = free + taken + (size_t{1} << 20);
  const absl::Status refused = Start(24).status();
  EXPECT_EQ(refused.code(), Code::kResourceExhausted) << refused;
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("the largest batch that is allowed, 24 requests with 768 beam rows"),
                    HasSubstr("out of memory: cuda: "), HasSubstr("lower max_batch_requests or max_batch_rows"),
                    HasSubstr("estimated before, without batches: on the device weights 0.2 MB")));
  EXPECT_LT(emulator::allocated - free, size_t{1} << 20) << "of the refused one, too";
  const absl::Status fits = Start(2).status();
  EXPECT_TRUE(fits.ok()) << fits;
}

// Beside the version that serves, which goes on.
TEST_F(DeviceMemoryTest, AVersionMeetsWhatTheServingOneHolds) {
  const size_t free = emulator::allocated;
  auto started = Start(24);
  ASSERT_TRUE(started.ok()) << started.status();
  engine_ = *std::move(started);
  const size_t taken = emulator::allocated - free;

  Publish(2);
  emulator::memory = free + 2 * taken - (size_t{1} << 20);  // the estimate does not know what the largest batch takes
  LookAfter(absl::Seconds(6));
  EXPECT_THAT(engine_->GetStatus().versions.back().error,
              AllOf(HasSubstr("out of memory: cuda: "), HasSubstr("lower max_batch_requests or max_batch_rows"),
                    HasSubstr("the version that serves holds its own beside this one")));
  EXPECT_LT(emulator::allocated, free + taken + (size_t{64} << 10)) << "all that is large is given back";
  EXPECT_EQ(Answering(), Version(1));
}

// A thread that let the first device do it would begin to use that one. The emulator ends the process.
TEST(DeviceMemory, IsFreedOnItsDeviceByWhoeverLetsGoLast) {
  at::Tensor tensor;
  std::optional<backend::cuda::PinnedMemory> pinned;
  std::thread([&] {
    cudaSetDevice(1);
    tensor = backend::cuda::NewTensor(c10::kCPU, {4}, c10::kFloat);
    pinned.emplace(64);
  }).join();
  for (const auto& let_go :
       {std::function<void()>([&] { tensor.reset(); }), std::function<void()>([&] { pinned.reset(); })}) {
    std::thread([&] {
      let_go();
      int device = 0;
      EXPECT_EQ(cudaGetDevice(&device), cudaSuccess);
      EXPECT_EQ(device, 1);
    }).join();
  }
}

}  // namespace
}  // namespace beamline::engine
