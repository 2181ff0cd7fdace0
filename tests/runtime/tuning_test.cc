// SPDX-License-Identifier: Apache-2.0
//
// What the cuda backend measures at warm-up is kept for the next start, beside a bundle that nobody writes to; and no
// start fails for want of it.
#include <cstdlib>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/test_context.h"
#include "base/file.h"
#include "model/weights.h"
#include "runtime/bundle_folder.h"
#include "runtime/model_runner.h"
#include "runtime/tiny_bundle.h"
#include "runtime/tuning_cache.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::StartsWith;

class TuningTest : public ::testing::Test {
 protected:
  void SetUp() override {
    fs::remove_all(root_);
    const auto manifest = testing::WriteTinyBundle(root_ / "bundle", {.feature_width = 8});
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    digest_ = *IdentifyBundle(root_ / "bundle");
  }

  // As a process does that starts: a backend of its own, the bundle loaded and warmed up.
  std::unique_ptr<backend::cuda::CudaBackend> Start(const fs::path& folder) {
    auto backend = backend::MakeCudaTestBackend();
    ModelRunner::Parts parts;
    parts.context.backend = backend.get();
    Bundle bundle = *LoadBundle(root_ / "bundle");
    parts.model = *model::MakeModel(bundle.config, *model::LoadWeights(parts.context, bundle.config, bundle.weights));
    parts.vocabulary = bundle.vocabulary;
    parts.catalogue = bundle.catalogue;
    parts.codebook_fingerprint = bundle.manifest.codebook_fingerprint;
    parts.tuning = TuningCache(backend.get(), folder, digest_);
    parts.tuning.Load();
    file_ = parts.tuning.file();
    ModelRunner runner(std::move(parts));
    const absl::Status warm = runner.WarmUp({}, ScoreRule::kFull);
    EXPECT_TRUE(warm.ok()) << warm;
    return backend;
  }

  const fs::path root_ = fs::path(::testing::TempDir()) / "beamline_tuning_test";
  std::string digest_, file_;
};

TEST_F(TuningTest, IsMeasuredOnceAndKeptApartFromTheBundle) {
  const fs::path cache = root_ / "cache" / "tuning";
  const auto first = Start(cache);
  const int64_t choices = first->algorithms().size();
  EXPECT_GT(choices, 3);
  EXPECT_EQ(first->algorithms().measured(), choices);
  EXPECT_EQ(fs::path(file_).parent_path(), cache);
  EXPECT_THAT(fs::path(file_).filename().string(), StartsWith(digest_ + "-cublaslt-"));
  EXPECT_TRUE(OpenBundleFolder(root_ / "bundle").ok()) << "a file more in the bundle";

  const auto again = Start(cache);
  EXPECT_EQ(again->algorithms().measured(), 0);
  EXPECT_EQ(again->algorithms().size(), choices);
  EXPECT_EQ(*ReadFile(file_, 1 << 20), first->ExportTuning());

  // What was kept is what is used: of the line of one product another algorithm.
  const std::string text = *ReadFile(file_, 1 << 20);
  const std::string ascending = absl::StrCat(" ", emulator::kAscending, " 0 0 0 0 0 0 0\n");
  const size_t at = text.find(ascending);
  ASSERT_NE(at, std::string::npos) << text;
  std::string changed = text;
  changed.replace(at, ascending.size(), absl::StrCat(" ", emulator::kOrderOfFew, " 0 0 0 0 0 0 0\n"));
  ASSERT_TRUE(WriteFileAtomically(file_, changed).ok());
  EXPECT_EQ(Start(cache)->ExportTuning(), changed);
  // But not one that the library refuses.
  changed.replace(at, ascending.size(), " 9 0 0 0 0 0 0 0\n");
  ASSERT_TRUE(WriteFileAtomically(file_, changed).ok());
  const auto refused = Start(cache);
  EXPECT_EQ(refused->algorithms().measured(), 1);
  EXPECT_EQ(*ReadFile(file_, 1 << 20), text) << "measured again, and kept";
}

TEST_F(TuningTest, DamagedFilesAndFoldersThatCannotBeWrittenCostTimeAlone) {
  const fs::path cache = root_ / "cache";
  const auto first = Start(cache);
  ASSERT_TRUE(WriteFileAtomically(file_, first->ExportTuning() + "1 2 three\n").ok());
  EXPECT_EQ(Start(cache)->algorithms().measured(), first->algorithms().size());
  EXPECT_EQ(*ReadFile(file_, 1 << 20), first->ExportTuning());

  ASSERT_TRUE(WriteFileAtomically(root_ / "no_folder", "a file").ok());
  EXPECT_EQ(Start(root_ / "no_folder")->algorithms().measured(), first->algorithms().size());
  EXPECT_FALSE(fs::exists(file_));
  EXPECT_EQ(Start("")->algorithms().measured(), first->algorithms().size());
  EXPECT_EQ(file_, "");
}

TEST_F(TuningTest, NothingIsKeptOfBackendsThatMeasureNothing) {
  const backend::Context cpu = *backend::MakeContext("cpu", "fp32", "cpu");
  TuningCache cache(cpu.backend, root_ / "cache", digest_);
  cache.Load();
  cache.Save();
  EXPECT_EQ(cache.file(), "");
  EXPECT_FALSE(fs::exists(root_ / "cache"));
}

TEST(TuningFolder, IsTheUsersCacheUnlessOneIsNamed) {
  const auto keep = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  const std::string cache = keep("XDG_CACHE_HOME"), home = keep("HOME");
  EXPECT_EQ(TuningFolder("here"), fs::path("here"));
  setenv("XDG_CACHE_HOME", "/c", 1);
  EXPECT_EQ(TuningFolder(""), fs::path("/c/beamline/tuning"));
  setenv("XDG_CACHE_HOME", "relative", 1);
  setenv("HOME", "/h", 1);
  EXPECT_EQ(TuningFolder(""), fs::path("/h/.cache/beamline/tuning"));
  unsetenv("HOME");
  EXPECT_EQ(TuningFolder(""), fs::path());
  cache.empty() ? unsetenv("XDG_CACHE_HOME") : setenv("XDG_CACHE_HOME", cache.c_str(), 1);
  if (!home.empty()) setenv("HOME", home.c_str(), 1);
}

}  // namespace
}  // namespace beamline::runtime
