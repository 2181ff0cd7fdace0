// SPDX-License-Identifier: Apache-2.0
//
// What the cuda backend measures at warm-up is kept for the next start, packed into a bundle or beside one, which
// nobody writes to; and no start fails for want of it.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "backend/test_context.h"
#include "base/digest.h"
#include "base/file.h"
#include "runtime/bundle_folder.h"
#include "runtime/bundle_writer.h"
#include "runtime/load_model.h"
#include "runtime/tiny_bundle.h"
#include "runtime/tuning_cache.h"
#include "runtime/tuning_file.h"

namespace beamline::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class TuningTest : public ::testing::Test {
 protected:
  void SetUp() override { fs::remove_all(root_); }

  using Backend = backend::cuda::CudaBackend;
  // As a process does that starts: a backend of its own, a bundle loaded and warmed up.
  std::unique_ptr<Backend> StartEngine(const fs::path& bundle_folder) {
    auto backend = backend::MakeCudaTestBackend();
    ModelRunner::Parts parts;
    parts.context.backend = backend.get();
    const auto runner = LoadRunnerOn({.bundle = bundle_folder, .tuning_folder = cache_}, std::move(parts));
    EXPECT_TRUE(runner.ok()) << runner.status();
    file_ = cache_ / absl::StrCat(*IdentifyBundle(bundle_folder), "-", backend->TuningName(), ".txt");
    const absl::Status warm = (*runner)->WarmUp({}, ScoreRule::kFull);
    EXPECT_TRUE(warm.ok()) << warm;
    return backend;
  }
  // The same with three products in the bundle's place.
  std::unique_ptr<Backend> Start(const fs::path& folder) {
    auto backend = backend::MakeCudaTestBackend();
    TuningCache cache(backend.get(), folder, "digest");
    cache.Load();
    backend::Context shared;
    shared.backend = backend.get();
    {
      backend::Context ctx = backend::BeginBatch(shared);
      for (const int64_t out : {8, 16, 24}) {
        const at::Tensor weight = backend::UploadWeight(ctx, std::vector<float>(out * 16, 0.5f), {out, 16});
        const at::Tensor x = backend::UploadWeight(ctx, std::vector<float>(2 * 16, 1.0f), {2, 16});
        EXPECT_EQ(backend::DownloadFloats(ctx, backend::Dense(ctx, x, {.weight = weight, .bias = {}})),
                  std::vector<float>(2 * out, 8.0f));
      }
    }
    cache.Save();
    file_ = cache.file();
    return backend;
  }

  // What the file keeps of the backend's text, and a file that keeps it.
  std::string Kept() const {
    const std::string bytes = *ReadFile(file_, 1 << 20);
    return bytes.substr(bytes.find('\n') + 1);
  }
  void Keep(const std::string& text) {
    ASSERT_TRUE(WriteFileAtomically(file_, absl::StrCat(Sha256Hex(text), "\n", text)).ok());
  }

  const fs::path root_ = fs::path(::testing::TempDir()) / "beamline_tuning_test", cache_ = root_ / "cache" / "tuning";
  std::string file_;
};

TEST_F(TuningTest, IsMeasuredAtWarmUpAndKeptApartFromTheBundle) {
  const fs::path bundle = root_ / "bundle";
  const auto manifest = testing::WriteTinyBundle(bundle, {.feature_width = 8});
  ASSERT_TRUE(manifest.ok()) << manifest.status();
  const auto first = StartEngine(bundle);
  const int64_t choices = first->algorithms().size();
  EXPECT_GT(choices, 3);
  EXPECT_EQ(first->algorithms().measured(), choices);
  EXPECT_TRUE(fs::exists(file_)) << file_;
  EXPECT_THAT(first->TuningName(), StartsWith("cublaslt-"));
  EXPECT_TRUE(OpenBundleFolder(bundle).ok()) << "a file more in the bundle";

  const auto again = StartEngine(bundle);
  EXPECT_EQ(again->algorithms().measured(), 0);
  EXPECT_EQ(again->algorithms().size(), choices);
  EXPECT_EQ(Kept(), first->ExportTuning());
}

// As whoever packs the next bundle does, with a file of the cache or of a bundle before.
class PackedTuningTest : public TuningTest {
 protected:
  void SetUp() override {
    TuningTest::SetUp();
    const auto manifest = testing::WriteTinyBundle(root_ / "plain", {.feature_width = 8});
    ASSERT_TRUE(manifest.ok()) << manifest.status();
    catalogue_ = LoadBundle(root_ / "plain")->catalogue;
  }
  absl::Status Pack(const std::string& name, const std::vector<fs::path>& tuning, uint64_t seed = 1) const {
    const fs::path folder = root_ / "parts";
    EXPECT_TRUE(testing::WriteTinyParts(folder, {.seed = seed, .feature_width = 8}).ok());
    BundleParts parts = {folder / kConfigFile, folder / kWeightsFile, folder / kVocabularyFile,
                         root_ / "plain" / kCodebookFile, catalogue_};
    parts.tuning = tuning;
    return WriteBundle(parts, root_ / name, {.overwrite = true}).status();
  }
  std::shared_ptr<const catalogue::CatalogueSnapshot> catalogue_;
};

TEST_F(PackedTuningTest, IsUsedByEveryBundleThatHoldsIt) {
  const std::string text = StartEngine(root_ / "plain")->ExportTuning();
  ASSERT_TRUE(Pack("tuned", {file_}).ok()) << Pack("tuned", {file_});
  const BundleManifest manifest = *OpenBundleFolder(root_ / "tuned");
  const std::string name = TuningFileInBundle(backend::MakeCudaTestBackend()->TuningName());
  EXPECT_TRUE(manifest.files.contains(name)) << name;
  EXPECT_EQ(manifest.model_version, LoadBundle(root_ / "plain")->manifest.model_version) << "the same model";
  fs::remove_all(cache_);
  const auto tuned = StartEngine(root_ / "tuned");
  EXPECT_EQ(tuned->algorithms().measured(), 0);
  EXPECT_EQ(tuned->ExportTuning(), text);
  EXPECT_FALSE(fs::exists(cache_)) << "there was nothing to keep";

  // Other weights of the same shapes, packed with what the bundle before holds.
  ASSERT_TRUE(Pack("next", {root_ / "tuned" / name}, 2).ok());
  EXPECT_EQ(StartEngine(root_ / "next")->algorithms().measured(), 0);

  // A cache that says otherwise comes after.
  const std::string ascending = absl::StrCat(" ", emulator::kAscending, " 0 0 0 0 0 0 0\n");
  std::string changed = text;
  changed.replace(changed.find(ascending), ascending.size(),
                  absl::StrCat(" ", emulator::kOrderOfFew, " 0 0 0 0 0 0 0\n"));
  ASSERT_TRUE(MakeFolder(cache_).ok());
  Keep(changed);
  EXPECT_EQ(StartEngine(root_ / "next")->ExportTuning(), text);
}

TEST_F(PackedTuningTest, AFileThatIsDamagedThereCostsTimeAlone) {
  const int64_t choices = StartEngine(root_ / "plain")->algorithms().measured();
  ASSERT_TRUE(Pack("tuned", {file_}).ok());
  fs::remove_all(cache_);
  const fs::path inside = root_ / "tuned" / TuningFileInBundle(backend::MakeCudaTestBackend()->TuningName());
  std::string bytes = *ReadFile(inside, 1 << 20);
  bytes[100] ^= 1;
  std::ofstream(inside, std::ios::binary) << bytes;
  EXPECT_EQ(StartEngine(root_ / "tuned")->algorithms().measured(), choices);
  EXPECT_TRUE(fs::exists(file_)) << "kept apart";
  EXPECT_EQ(*ReadFile(inside, 1 << 20), bytes) << "a bundle is not written to";
}

TEST_F(PackedTuningTest, OtherFilesAreNotPacked) {
  const std::string digest(64, 'a');
  const auto write = [&](const std::string& name, const std::string& bytes) {
    EXPECT_TRUE(MakeFolder(root_ / "given").ok());
    EXPECT_TRUE(WriteFileAtomically(root_ / "given" / name, bytes).ok());
    return root_ / "given" / name;
  };
  const fs::path good = write(digest + "-a.txt", TuningToBytes("measured")),
                 same = write("tuning-a.txt", TuningToBytes("")),
                 other = write("tuning-b.txt", TuningToBytes("measured"));
  EXPECT_TRUE(Pack("packed", {good, other}).ok());
  EXPECT_EQ(Pack("packed", {good, same}).message(),
            absl::StrCat(same.string(), ": is of the device that ", good.string(), " is of; give one of them"));
  for (const char* name : {"a.txt", "tuning-.txt", "tuning-a_b.txt", "tuning-a.text", "gate.json"}) {
    EXPECT_THAT(std::string(Pack("packed", {write(name, TuningToBytes("measured"))}).message()),
                HasSubstr(absl::StrCat(name, ": is no tuning file by its name")));
  }
  EXPECT_EQ(
      Pack("packed", {write("tuning-c.txt", "edited by hand")}).message(),
      absl::StrCat((root_ / "given" / "tuning-c.txt").string(), ": its first line is not the SHA-256 of the others"));
}

TEST_F(TuningTest, WhatWasKeptIsUsedUnlessTheLibraryRefusesIt) {
  EXPECT_EQ(Start(cache_)->algorithms().measured(), 3);
  const std::string text = Kept();
  const std::string ascending = absl::StrCat(" ", emulator::kAscending, " 0 0 0 0 0 0 0\n");
  const size_t at = text.find(ascending);
  ASSERT_NE(at, std::string::npos) << text;
  std::string changed = text;
  changed.replace(at, ascending.size(), absl::StrCat(" ", emulator::kOrderOfFew, " 0 0 0 0 0 0 0\n"));
  Keep(changed);
  const auto taken = Start(cache_);
  EXPECT_EQ(taken->algorithms().measured(), 0);
  EXPECT_EQ(taken->ExportTuning(), changed);

  changed.replace(at, ascending.size(), " 9 0 0 0 0 0 0 0\n");
  Keep(changed);
  EXPECT_EQ(Start(cache_)->algorithms().measured(), 1);
  EXPECT_EQ(Kept(), text) << "measured again, and kept";
}

TEST_F(TuningTest, DamagedFilesAndFoldersThatCannotBeWrittenCostTimeAlone) {
  const std::string good = Start(cache_)->ExportTuning();
  Keep(good + "1 2 three\n");
  EXPECT_EQ(Start(cache_)->algorithms().measured(), 3);
  EXPECT_EQ(Kept(), good);
  Keep("cublaslt 7 on another device\n");
  EXPECT_EQ(Start(cache_)->algorithms().measured(), 3);

  ASSERT_TRUE(WriteFileAtomically(root_ / "no_folder", "a file").ok());
  EXPECT_EQ(Start(root_ / "no_folder")->algorithms().measured(), 3);
  EXPECT_FALSE(fs::exists(file_));
  EXPECT_EQ(Start("")->algorithms().measured(), 3);
  EXPECT_EQ(file_, "");
}

// A thousand times cut off or with a flipped bit: nothing of it is used, nothing fails.
TEST_F(TuningTest, NothingOfADamagedFileIsUsed) {
  const std::string text = Start(cache_)->ExportTuning(), good = *ReadFile(file_, 1 << 20);
  ASSERT_EQ(text, Kept());
  const auto imported = [&] {
    const auto backend = backend::MakeCudaTestBackend();
    TuningCache(backend.get(), cache_, "digest").Load();
    return backend->algorithms().size();
  };
  ASSERT_EQ(imported(), 3);
  std::mt19937_64 random(1);
  for (int turn = 0; turn < 1000; ++turn) {
    std::string bad = good;
    if (turn % 2 == 0) {
      bad.resize(random() % good.size());
    } else {
      char& byte = bad[random() % bad.size()];
      byte = static_cast<char>(byte ^ (1 << random() % 8));
    }
    std::ofstream(file_, std::ios::binary | std::ios::trunc) << bad;
    ASSERT_EQ(imported(), 0) << "turn " << turn;
  }
  Keep(text);
  EXPECT_EQ(imported(), 3);
}

TEST_F(TuningTest, NothingIsKeptOfBackendsThatMeasureNothing) {
  const backend::Context cpu = *backend::MakeContext("cpu", "fp32", "cpu");
  TuningCache cache(cpu.backend, cache_, "digest");
  cache.Load();
  cache.Save();
  EXPECT_EQ(cache.file(), "");
  EXPECT_FALSE(fs::exists(cache_));
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
