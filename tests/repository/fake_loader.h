// SPDX-License-Identifier: Apache-2.0
//
// Models without content: a bundle is a folder whose file bundle.json holds its text, and the text says how it fails:
// "broken" in Load, "busy" there with UNAVAILABLE, "cold" in WarmUp. Counts what is alive. Thread-safe.
#pragma once

#include <atomic>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "gtest/gtest.h"
#include "repository/loader.h"

namespace beamline::repository {

// Outlives the models.
struct FakeCounts {
  std::atomic<int> alive{0}, most_alive{0}, loads{0}, warm_ups{0};
};

class FakeModel final : public Model {
 public:
  FakeModel(std::string version, FakeCounts* counts) : version_(std::move(version)), counts_(*counts) {
    const int alive = ++counts_.alive;
    if (alive > counts_.most_alive) counts_.most_alive = alive;
  }
  ~FakeModel() override {
    usable = false;
    --counts_.alive;
  }
  const std::string& version() const override { return version_; }

  std::atomic<bool> usable{true};

 private:
  const std::string version_;
  FakeCounts& counts_;
};

class FakeLoader final : public Loader {
 public:
  explicit FakeLoader(FakeCounts* counts) : counts_(*counts) {}
  std::function<void()> during_load;

  absl::StatusOr<std::string> Identify(const std::string& path) override {
    return ReadFile(std::filesystem::path(path) / "bundle.json", 1000);
  }
  absl::Status Verify(const std::string& path) override {
    return std::filesystem::exists(std::filesystem::path(path) / "damaged")
               ? absl::DataLossError(absl::StrCat(path, ": is damaged"))
               : absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<Model>> Load(const std::string& path, const std::string& digest) override {
    ++counts_.loads;
    if (during_load) during_load();
    const auto text = Identify(path);
    if (!text.ok()) return text.status();
    if (*text != digest) return absl::AbortedError(absl::StrCat(path, ": was replaced"));
    if (absl::StrContains(*text, "broken")) return absl::DataLossError(absl::StrCat(path, ": is broken"));
    if (absl::StrContains(*text, "busy")) return absl::UnavailableError(absl::StrCat(path, ": disk is busy"));
    return std::make_unique<FakeModel>(*text, &counts_);
  }
  absl::Status WarmUp(Model& model, const Model* serving) override {
    ++counts_.warm_ups;
    if (serving != nullptr) {
      EXPECT_TRUE(static_cast<const FakeModel*>(serving)->usable);
    }
    return absl::StrContains(model.version(), "cold") ? absl::InternalError("non_finite_logits") : absl::OkStatus();
  }

 private:
  FakeCounts& counts_;
};

// A folder of its own per test, emptied first.
inline std::filesystem::path TestFolder() {
  const auto* info = ::testing::UnitTest::GetInstance()->current_test_info();
  std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) /
                                 absl::StrCat("repository_", info->test_suite_name(), "_", info->name());
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  return folder;
}

// A bundle at `path`, in one rename.
inline std::string WriteBundle(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path temporary = path.parent_path() / absl::StrCat("tmp-", path.filename().string());
  std::filesystem::create_directories(temporary);
  std::ofstream(temporary / "bundle.json") << text;
  std::filesystem::remove_all(path);
  std::filesystem::rename(temporary, path);
  return path.string();
}

}  // namespace beamline::repository
