// SPDX-License-Identifier: Apache-2.0
//
// A runner of a tiny bundle with the cuda backend, which the emulator runs, after its warm-up: nothing is allocated,
// measured or captured any more, and a batch waits where it must alone.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/test_context.h"
#include "model/weights.h"
#include "runtime/model_runner.h"
#include "runtime/tiny_bundle.h"

namespace beamline::runtime::testing {

class CudaRunnerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(WriteTinyBundle(folder_, {.feature_width = 8}).ok());
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
    std::filesystem::remove_all(folder_);
  }

  std::unique_ptr<RequestJob> MakeJob(const std::string& user) const {
    auto job = std::make_unique<RequestJob>();
    job->snapshot = runner_->catalogue();
    const std::vector<Event> history = TinyHistory(1, 5);
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

  const std::filesystem::path folder_ =
      std::filesystem::path(::testing::TempDir()) / absl::StrCat("cuda_runner_", ::getpid());
  const std::unique_ptr<backend::cuda::CudaBackend> backend_ = backend::MakeCudaTestBackend();
  std::unique_ptr<ModelRunner> runner_;
};

}  // namespace beamline::runtime::testing
