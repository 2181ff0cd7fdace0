// SPDX-License-Identifier: Apache-2.0
//
// Family t5 answers as transformers' generate does under a trie (tests/golden/t5_parity.py): checkpoint and index
// through ImportHf into a bundle, the bundle into a runner, every request alone and in padded batches of mixed lengths
// and widths. The small set is in the repository; BEAMLINE_PARITY_DIR names a folder with more cases.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "parity/golden_case.h"
#include "parity/list_comparison.h"
#include "runtime/bundle_manifest.h"
#include "runtime/request_job.h"
#include "runtime/runner.h"
#include "runtime/vocabulary.h"
#include "testing/paths.h"

namespace beamline::parity {
namespace {

namespace fs = std::filesystem;

constexpr int kBatch = 9;              // odd, so that widths and lengths mix
constexpr size_t kMostInCompany = 90;  // requests of a case; of the set made on demand together more than 500

struct Loaded {
  GoldenCase golden;
  std::unique_ptr<runtime::Runner> runner;
  std::vector<int32_t> rows;  // of the embedding, by token
};

absl::StatusOr<Loaded> Load(const fs::path& folder, const std::string& backend, const std::string& dtype = "fp32") {
  Loaded loaded;
  absl::StatusOr<GoldenCase> golden = ReadGoldenCase(folder);
  if (!golden.ok()) return golden.status();
  loaded.golden = *std::move(golden);
  runtime::ImportHfOptions options = loaded.golden.import;
  options.out = fs::path(::testing::TempDir()) / absl::StrCat("parity_", loaded.golden.name);
  options.overwrite = true;
  if (const auto imported = runtime::ImportHf(options); !imported.ok()) return imported.status();
  const auto vocabulary = runtime::Vocabulary::Load((options.out / runtime::kVocabularyFile).string());
  if (!vocabulary.ok()) return vocabulary.status();
  for (size_t row = 0; row < vocabulary->tokens().size(); ++row) {
    const int64_t token = vocabulary->tokens()[row];
    if (token < 0) continue;
    loaded.rows.resize(std::max<size_t>(loaded.rows.size(), token + 1), -1);
    loaded.rows[token] = static_cast<int32_t>(row);
  }
  absl::StatusOr<std::unique_ptr<runtime::Runner>> runner = runtime::LoadRunner(
      {.bundle = options.out.string(), .dtype = dtype, .backend = backend, .threads = 1, .context_cache_bytes = 0});
  if (!runner.ok()) return runner.status();
  loaded.runner = *std::move(runner);
  return loaded;
}

// The request as serving makes it of a history of items; its tokens must be those that transformers read.
std::unique_ptr<runtime::RequestJob> MakeJob(const Loaded& loaded, const GoldenRequest& request) {
  auto job = std::make_unique<runtime::RequestJob>();
  std::vector<Event> history(request.history.size());
  for (size_t i = 0; i < history.size(); ++i) history[i].item = request.history[i];
  job->snapshot = loaded.runner->catalogue();
  job->input = loaded.runner->BuildInput({.history = history}, *job->snapshot);
  std::vector<int32_t> expected;
  for (const int64_t token : request.tokens) expected.push_back(loaded.rows.at(token));
  EXPECT_EQ(job->input.pathways[0].features, expected) << "tokens of a history";
  job->beam_widths.assign(loaded.runner->info().levels(), request.width);
  job->SetCosts();
  return job;
}

// The lists of the requests [begin, end), run together.
std::vector<std::vector<decode::Hypothesis>> Run(const Loaded& loaded, size_t begin, size_t end) {
  std::vector<std::unique_ptr<runtime::RequestJob>> jobs;
  std::vector<scheduler::Job*> batch;
  for (size_t i = begin; i < end; ++i) {
    jobs.push_back(MakeJob(loaded, loaded.golden.requests[i]));
    batch.push_back(jobs.back().get());
  }
  for (const absl::Status& status : loaded.runner->Encode(batch)) EXPECT_TRUE(status.ok()) << status;
  const auto pass = [](const scheduler::Job&) { return absl::OkStatus(); };
  for (const absl::Status& status : loaded.runner->Decode(batch, pass)) EXPECT_TRUE(status.ok()) << status;
  std::vector<std::vector<decode::Hypothesis>> lists;
  for (const auto& job : jobs) lists.push_back(job->hypotheses);
  return lists;
}

// Runs the requests [begin, end) together and adds their lists to the tally.
void RunBatch(const Loaded& loaded, size_t begin, size_t end, Tally& tally) {
  const auto lists = Run(loaded, begin, end);
  for (size_t i = begin; i < end; ++i) {
    std::vector<Scored> actual;
    for (const decode::Hypothesis& hypothesis : lists[i - begin]) actual.push_back({hypothesis.sid, hypothesis.score});
    const GoldenRequest& request = loaded.golden.requests[i];
    Compare(request.expected, actual, absl::StrCat("request ", i, ", width ", request.width), tally);
  }
}

void CheckTally(const Tally& tally, const std::string& what) {
  std::printf("%s: %s\n", what.c_str(), tally.ToString().c_str());
  EXPECT_EQ(tally.failed, 0) << what;
  for (const std::string& failure : tally.failures) ADD_FAILURE() << what << ": " << failure;
  EXPECT_LE(static_cast<double>(tally.reordered + tally.other_members), kMaxExcused * static_cast<double>(tally.lists))
      << what;
}

void CheckCase(const fs::path& folder, const std::string& backend) {
  const absl::StatusOr<Loaded> loaded = Load(folder, backend);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::string what = absl::StrCat(loaded->golden.name, " on ", backend);
  const size_t count = loaded->golden.requests.size();
  Tally alone, batched;
  for (size_t i = 0; i < count; ++i) RunBatch(*loaded, i, i + 1, alone);
  CheckTally(alone, absl::StrCat(what, ", alone"));
  for (size_t i = 0; i < count; i += kBatch) RunBatch(*loaded, i, std::min(count, i + kBatch), batched);
  CheckTally(batched, absl::StrCat(what, ", in batches of ", kBatch));
}

// Backend cpu promises more than the tolerances: the same bits in any company, in every precision.
void CheckCompany(const fs::path& folder, const std::string& dtype) {
  const absl::StatusOr<Loaded> loaded = Load(folder, "cpu", dtype);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const size_t count = std::min(loaded->golden.requests.size(), kMostInCompany);
  for (size_t begin = 0; begin < count; begin += kBatch) {
    const auto together = Run(*loaded, begin, std::min(count, begin + kBatch));
    for (size_t i = 0; i < together.size(); ++i) {
      const auto alone = Run(*loaded, begin + i, begin + i + 1)[0];
      const std::string where = absl::StrCat(loaded->golden.name, " in ", dtype, ", request ", begin + i);
      ASSERT_EQ(alone.size(), together[i].size()) << where;
      for (size_t rank = 0; rank < alone.size(); ++rank) {
        ASSERT_EQ(alone[rank].sid, together[i][rank].sid) << where << ", rank " << rank;
        ASSERT_EQ(alone[rank].score, together[i][rank].score) << where << ", rank " << rank;
      }
    }
  }
}

class T5Company : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Dtypes, T5Company, ::testing::Values("fp32", "bf16", "int8"));

TEST_P(T5Company, AnswersOfBackendCpuAreBitIdenticalAloneAndInBatches) {
  std::vector<fs::path> folders = CaseFolders(fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5");
  if (const char* directory = std::getenv("BEAMLINE_PARITY_DIR"); directory != nullptr) {
    for (const fs::path& folder : CaseFolders(directory)) folders.push_back(folder);
  }
  for (const fs::path& folder : folders) CheckCompany(folder, GetParam());
}

class T5Parity : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Backends, T5Parity, ::testing::Values("aten", "cpu"));

TEST_P(T5Parity, TheSetInTheRepository) {
  const std::vector<fs::path> folders = CaseFolders(fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5");
  ASSERT_GE(folders.size(), 4u);
  for (const fs::path& folder : folders) CheckCase(folder, GetParam());
}

TEST_P(T5Parity, TheSetMadeOnDemand) {
  const char* directory = std::getenv("BEAMLINE_PARITY_DIR");
  if (directory == nullptr) GTEST_SKIP() << "BEAMLINE_PARITY_DIR names no folder made by tests/golden/t5_parity.py";
  const std::vector<fs::path> folders = CaseFolders(directory);
  ASSERT_FALSE(folders.empty()) << directory;
  for (const fs::path& folder : folders) CheckCase(folder, GetParam());
}

}  // namespace
}  // namespace beamline::parity
