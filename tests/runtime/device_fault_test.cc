// SPDX-License-Identifier: Apache-2.0
//
// A device that fails under a batch, on the emulator: CUDA says so where the batch waits.
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
#include "backend/test_context.h"
#include "model/weights.h"
#include "runtime/model_runner.h"
#include "runtime/tiny_bundle.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class DeviceFaultTest : public ::testing::Test {
 protected:
  // Warmed up: nothing is allocated, measured or captured any more, and a batch waits where it must alone.
  void SetUp() override {
    ASSERT_TRUE(testing::WriteTinyBundle(folder_, {.feature_width = 8}).ok());
    ModelRunner::Parts parts;
    parts.context.backend = backend_.get();
    Bundle bundle = *LoadBundle(folder_);
    parts.model = *model::MakeModel(bundle.config, *model::LoadWeights(parts.context, bundle.config, bundle.weights));
    parts.vocabulary = bundle.vocabulary;
    parts.catalogue = bundle.catalogue;
    parts.codebook_fingerprint = bundle.manifest.codebook_fingerprint;
    parts.context_cache_bytes = 1 << 20;
    runner_ = std::make_unique<ModelRunner>(std::move(parts));
    for (const char* user : {"a", "b", "c"}) {
      const auto job = MakeJob(user);
      ASSERT_TRUE(Encode(*job).ok());
      ASSERT_TRUE(Decode(*job).ok());
    }
  }
  void TearDown() override {
    emulator::device_error = cudaSuccess;
    runner_.reset();
    fs::remove_all(folder_);
  }

  std::unique_ptr<RequestJob> MakeJob(const std::string& user) const {
    auto job = std::make_unique<RequestJob>();
    job->snapshot = runner_->catalogue();
    const std::vector<Event> history = testing::TinyHistory(1, 5);
    job->input = runner_->BuildInput({.user_id = "", .user_attributes = {}, .history = history}, *job->snapshot);
    job->context_key = {user, Digest(job->input), "model"};
    job->beam_widths = {4, 8, 8};
    job->SetCosts();
    return job;
  }
  absl::Status Encode(RequestJob& job) {
    scheduler::Job* const jobs[] = {&job};
    return runner_->Encode(jobs)[0];
  }
  absl::Status Decode(RequestJob& job) {
    scheduler::Job* const jobs[] = {&job};
    return runner_->Decode(jobs, [](const scheduler::Job&) { return absl::OkStatus(); })[0];
  }
  bool Cached(const std::string& user) { return runner_->TryAttachContext(*MakeJob(user)); }

  static void ExpectFault(const absl::Status& status, const std::string& operation) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("cuda: ", operation, ": ")));
    EXPECT_THAT(std::string(status.message()), HasSubstr("(cudaErrorIllegalAddress)"));
  }

  const fs::path folder_ = fs::path(::testing::TempDir()) / absl::StrCat("device_fault_", ::getpid());
  const std::unique_ptr<backend::cuda::CudaBackend> backend_ = backend::MakeCudaTestBackend();
  std::unique_ptr<ModelRunner> runner_;
};

TEST_F(DeviceFaultTest, AnEncodeThatFaultedFailsAndNothingOfItIsKept) {
  EXPECT_TRUE(Cached("a"));
  const auto job = MakeJob("new");
  emulator::device_error = cudaErrorIllegalAddress;
  const absl::Status fault = Encode(*job);
  ExpectFault(fault, "the end of a batch");
  EXPECT_EQ(job->context, nullptr);
  EXPECT_FALSE(Cached("new"));
  EXPECT_EQ(runner_->fault(), fault);

  emulator::device_error = cudaSuccess;  // later batches do not even ask
  EXPECT_EQ(Encode(*MakeJob("later")), fault);
  const auto cached = MakeJob("a");
  ASSERT_TRUE(runner_->TryAttachContext(*cached));
  const int waits = emulator::waits;
  EXPECT_EQ(Decode(*cached), fault);
  EXPECT_EQ(emulator::waits, waits);
}

TEST_F(DeviceFaultTest, ADecodeThatFaultedFailsAndIsTheLast) {
  const auto job = MakeJob("a");
  ASSERT_TRUE(Encode(*job).ok());
  emulator::device_error = cudaErrorIllegalAddress;
  const absl::Status fault = Decode(*job);
  ExpectFault(fault, "a batch");
  EXPECT_TRUE(job->hypotheses.empty());
  emulator::device_error = cudaSuccess;
  EXPECT_EQ(Decode(*job), fault);
  EXPECT_EQ(runner_->WarmUp({}, ScoreRule::kFull), fault) << "nor does a model load beside it";
}

TEST_F(DeviceFaultTest, AnotherErrorIsOfItsBatchAlone) {
  const auto job = MakeJob("new");
  emulator::device_error = cudaErrorUnknown;
  EXPECT_EQ(Encode(*job).code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(Cached("new"));
  emulator::device_error = cudaSuccess;
  EXPECT_TRUE(runner_->fault().ok());
  ASSERT_TRUE(Encode(*job).ok());
  emulator::device_error = cudaErrorUnknown;
  EXPECT_EQ(Decode(*job).code(), absl::StatusCode::kInternal);
  emulator::device_error = cudaSuccess;
  EXPECT_TRUE(Decode(*job).ok());
  EXPECT_TRUE(runner_->fault().ok());
  EXPECT_FALSE(job->hypotheses.empty());
}

// The result is that of the wait which every batch has.
TEST_F(DeviceFaultTest, AGoodEncodeWaitsOnce) {
  const auto job = MakeJob("new");
  const int before = emulator::waits;
  ASSERT_TRUE(Encode(*job).ok());
  EXPECT_EQ(emulator::waits, before + 1);
}

}  // namespace
}  // namespace beamline::runtime
