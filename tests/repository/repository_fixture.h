// SPDX-License-Identifier: Apache-2.0
//
// A repository of fake models without threads, under a clock that stands still, and a folder for its bundles.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "gtest/gtest.h"
#include "repository/fake_loader.h"
#include "repository/model_repository.h"

namespace beamline::repository {

class ModelRepositoryTest : public ::testing::Test {
 protected:
  absl::Status Start(RepositoryOptions options) {
    options.inline_execution = true;
    auto loader = std::make_unique<FakeLoader>(&counts_);
    loader_ = loader.get();
    auto repository = ModelRepository::Start(std::move(options), std::move(loader), clock_);
    if (!repository.ok()) return repository.status();
    repository_ = *std::move(repository);
    return absl::OkStatus();
  }
  void RunAll() {
    while (repository_->Step()) {
    }
  }
  absl::StatusOr<VersionStatus> Reload(const std::string& path = "") {
    absl::StatusOr<VersionStatus> answer = absl::UnknownError("no callback");
    repository_->Reload(path, [&](auto result) { answer = std::move(result); });
    RunAll();
    return answer;
  }
  absl::StatusOr<VersionStatus> Rollback() {
    absl::StatusOr<VersionStatus> answer = absl::UnknownError("no callback");
    repository_->Rollback([&](auto result) { answer = std::move(result); });
    RunAll();
    return answer;
  }
  // A poll period passes.
  void Poll() {
    clock_->Advance(absl::Seconds(5));
    RunAll();
  }
  std::string Serving() { return repository_->current()->version(); }
  // "1 a standby, 2 b serving"
  std::vector<std::string> States() {
    std::vector<std::string> states;
    for (const VersionStatus& version : repository_->versions()) {
      states.push_back(absl::StrCat(version.id, " ", version.model_version, " ", NameOf(version.state)));
    }
    return states;
  }

  const std::filesystem::path folder_ = TestFolder();
  FakeCounts counts_;
  std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
  std::unique_ptr<ModelRepository> repository_;
  FakeLoader* loader_ = nullptr;  // the repository's
};

}  // namespace beamline::repository
