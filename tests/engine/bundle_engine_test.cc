// SPDX-License-Identifier: Apache-2.0
//
// CreateEngine over a real, tiny bundle, and the example program run as its reader would.
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "backend/context.h"
#include "base/clock.h"
#include "base/log.h"
#include "beamline/engine.h"
#include "engine/cost_measurement.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/runner.h"
#include "runtime/tiny_bundle.h"
#include "spdlog/sinks/base_sink.h"
#include "spdlog/sinks/ostream_sink.h"

namespace beamline {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

class BundleEngineTest : public ::testing::Test {
 protected:
  BundleEngineTest() : folder_(fs::path(::testing::TempDir()) / absl::StrCat("bundle_engine_", ::getpid())) {
    fs::create_directories(folder_);
    const auto manifest = runtime::testing::WriteTinyBundle(folder_ / "bundle");
    EXPECT_TRUE(manifest.ok()) << manifest.status();
  }
  ~BundleEngineTest() override { fs::remove_all(folder_); }

  std::unique_ptr<Engine> Start(EngineOptions options = {}) {
    options.bundle = folder_ / "bundle";
    options.threads = 1;
    auto engine = CreateEngine(options);
    EXPECT_TRUE(engine.ok()) << engine.status();
    return *std::move(engine);
  }
  static RecommendRequest Request(uint64_t seed) {
    RecommendRequest request;
    request.user_id = absl::StrCat("user", seed);
    request.history = runtime::testing::TinyHistory(seed, static_cast<int>(seed * 5 % 23));
    request.beam_widths = {static_cast<int>(4 + seed % 3 * 6)};
    request.top_k = 8;
    request.exclude_history = seed % 2 == 0;
    if (seed % 3 == 0) request.eligibility.rule = {{"region", {"DE"}}};
    request.deadline = absl::Now() + absl::Seconds(60);
    return request;
  }

  const fs::path folder_;
};

// A history that left a pathway empty would say of every batch that it costs what one without history does.
TEST_F(BundleEngineTest, CostsAreMeasuredWithFullHistories) {
  const auto runner = runtime::LoadRunner({.bundle = folder_ / "bundle", .threads = 1});
  ASSERT_TRUE(runner.ok()) << runner.status();
  const RealClock clock;
  const auto costs = engine::MeasureCosts(**runner, {.max_requests = 2, .budget = absl::Minutes(1)}, clock);
  ASSERT_TRUE(costs.ok()) << costs.status();
  ASSERT_EQ(costs->size(), 4u);
  const auto& windows = (*runner)->info().window_lengths;
  for (const scheduler::BatchCost& cost : *costs) {
    EXPECT_GE(cost.size.context_tokens, cost.size.requests * (windows[0] + windows[1]));
  }
}

// What "auto" came to stays so, and is told once: a reload does not ask anew.
TEST_F(BundleEngineTest, DeviceAutoIsChosenOnce) {
  const std::string chosen = *runtime::ChooseDevice({.device = "auto"});
  std::ostringstream log;
  Log().sinks().push_back(std::make_shared<spdlog::sinks::ostream_sink_mt>(log, true));
  const absl::Cleanup no_more = [] { Log().sinks().pop_back(); };
  ASSERT_TRUE(runtime::testing::WriteTinyBundle(folder_ / "bundle", {.feature_width = 8}).ok());  // for any device
  const auto engine = Start({.device = "auto", .dtype = "bf16"});
  EXPECT_EQ(engine->GetStatus().device, chosen);
  EXPECT_EQ(engine->GetStatus().dtype, "bf16");
  EXPECT_EQ(engine->GetStatus().backend, backend::BackendOf(chosen, "auto"));
  ASSERT_TRUE(runtime::testing::WriteTinyBundle(folder_ / "next", {.seed = 2, .feature_width = 8}).ok());
  absl::Notification done;
  engine->Reload(folder_ / "next", [&](const absl::StatusOr<ModelVersion>& result) {
    EXPECT_TRUE(result.ok()) << result.status();
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_EQ(engine->GetStatus().device, chosen);
  const std::vector<std::string> parts = absl::StrSplit(log.str(), "device auto falls back to the CPU");
  ASSERT_EQ(parts.size(), chosen == "cpu" ? 2u : 1u) << log.str();
  if (chosen == "cpu") {
    EXPECT_THAT(parts[0].substr(parts[0].rfind('\n') + 1), HasSubstr("warning"));
    EXPECT_THAT(parts[1].substr(0, parts[1].find('\n')), HasSubstr("why=\"device: 'cuda' asked for, but"));
  }
}

void ExpectSameAnswer(const RecommendResult& a, const RecommendResult& b) {
  ASSERT_EQ(a.items.size(), b.items.size());
  for (size_t i = 0; i < a.items.size(); ++i) {
    EXPECT_EQ(a.items[i].item, b.items[i].item) << i;
    EXPECT_NEAR(a.items[i].score, b.items[i].score, 1e-5);
  }
}

TEST_F(BundleEngineTest, AnswersAreTheSameAloneInCompanyAndFromTheCache) {
  constexpr int kUsers = 12;
  auto alone = Start({.context_cache_bytes = 0});
  std::vector<RecommendResult> expected;
  for (int user = 0; user < kUsers; ++user) {
    const auto answer = alone->Recommend(Request(user));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_THAT(answer->items, ::testing::Not(::testing::IsEmpty()));
    EXPECT_FALSE(answer->context_cached);
    for (const RecommendedItem& item : answer->items) {
      EXPECT_EQ(alone->catalogue()->Encode(item.item), item.sid);
      float score = 0;
      for (float log_prob : item.log_probs) score += log_prob;
      EXPECT_EQ(score, item.score);
    }
    expected.push_back(*answer);
  }
  auto engine = Start({.max_queue_delay = absl::Milliseconds(50)});
  for (int round = 0; round < 2; ++round) {
    std::vector<absl::StatusOr<RecommendResult>> answers(kUsers, absl::UnknownError(""));
    for (int user = 0; user < kUsers; ++user) {
      engine->Submit(Request(user), [&answers, user](auto result) { answers[user] = std::move(result); });
    }
    while (engine->GetStatus().in_flight > 0) absl::SleepFor(absl::Milliseconds(1));
    for (int user = 0; user < kUsers; ++user) {
      ASSERT_TRUE(answers[user].ok()) << answers[user].status();
      ExpectSameAnswer(*answers[user], expected[user]);
      EXPECT_EQ(answers[user]->context_cached, round == 1);
    }
  }
}

TEST_F(BundleEngineTest, ErrorsNameTheirCause) {
  EXPECT_THAT(CreateEngine({.bundle = folder_ / "nothing"}).status().ToString(), HasSubstr("nothing"));
  EXPECT_THAT(CreateEngine({.bundle = folder_ / "bundle", .workers = 65}).status().ToString(), HasSubstr("workers"));
  EXPECT_THAT(CreateEngine({.bundle = folder_ / "bundle", .device = "abacus"}).status().ToString(),
              HasSubstr("abacus"));
  EXPECT_THAT(CreateEngine({}).status().ToString(), HasSubstr("bundle: is empty, and model_folder, too"));
}

// The same manifest, so the model in memory would do; but whoever names this folder means its files.
TEST_F(BundleEngineTest, AReloadOfADamagedCopyIsRefused) {
  const auto engine = Start();
  fs::copy(folder_ / "bundle", folder_ / "copy");
  const auto reload = [&] {
    absl::Notification done;
    absl::Status status;
    engine->Reload(folder_ / "copy", [&](const absl::StatusOr<ModelVersion>& result) {
      status = result.status();
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  };
  EXPECT_TRUE(reload().ok());
  std::fstream file(folder_ / "copy" / "model.safetensors", std::ios::in | std::ios::out | std::ios::binary);
  file.seekp(-1, std::ios::end);
  file.put('\x55');
  file.close();
  const absl::Status status = reload();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("model.safetensors"));
}

// Does something between the moment a bundle was identified and its load, once armed.
class WhenLoading final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  std::function<void()> once;  // set while nothing is logged

 private:
  void sink_it_(const spdlog::details::log_msg& message) override {
    if (once == nullptr ||
        !absl::StartsWith(absl::string_view(message.payload.data(), message.payload.size()), "model loading")) {
      return;
    }
    std::exchange(once, nullptr)();
  }
  void flush_() override {}
};

// Of one in whose place another came after it was identified: neither is served under the other's digest.
TEST_F(BundleEngineTest, WhatCameInPlaceOfABundleOrItsCatalogueWhileItLoadedIsRefused) {
  for (const int items : {140, 130}) {
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(folder_ / absl::StrCat(items), {.items = items}).ok());
  }
  const fs::path catalogue = folder_ / "catalogue", current = folder_ / "current";
  const auto replace_catalogue = [&](const char* bundle) {
    fs::copy_file(folder_ / bundle / "items", folder_ / "aside", fs::copy_options::overwrite_existing);
    fs::rename(folder_ / "aside", catalogue);
  };
  const auto point = [&](const char* bundle) {
    fs::remove(current);
    fs::create_symlink(folder_ / bundle, current);
  };
  replace_catalogue("bundle");
  const auto sink = std::make_shared<WhenLoading>();
  Log().sinks().push_back(sink);
  const absl::Cleanup gone = [&] { std::erase(Log().sinks(), sink); };
  EngineOptions options;
  options.catalogue = catalogue.string();
  const auto engine = Start(options);
  const auto reload = [&](std::function<void()> meanwhile) {
    sink->once = std::move(meanwhile);
    absl::Status status;
    absl::Notification done;
    engine->Reload(current, [&](const absl::StatusOr<ModelVersion>& result) {
      status = result.status();
      done.Notify();
    });
    done.WaitForNotification();
    return status;
  };
  const uint64_t before = engine->GetStatus().num_items;
  point("140");
  EXPECT_EQ(reload([&] { point("130"); }).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(reload([&] { replace_catalogue("140"); }).code(), absl::StatusCode::kAborted);
  EXPECT_EQ(engine->GetStatus().num_items, before) << "the one before serves on";
  EXPECT_TRUE(reload(nullptr).ok());
  EXPECT_EQ(engine->GetStatus().num_items, 140u);
}

// Runs the example; what it prints on standard output, then its exit code. Standard error goes to `log`.
std::string RunExample(const std::string& arguments, const fs::path& log) {
  const std::string command = absl::StrCat(BEAMLINE_EMBED_EXAMPLE, " ", arguments, " 2>", log.string());
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return "";
  std::string output;
  std::array<char, 4096> buffer;
  while (std::fgets(buffer.data(), buffer.size(), pipe) != nullptr) output += buffer.data();
  const int status = ::pclose(pipe);
  return absl::StrCat(output, "exit ", WEXITSTATUS(status), "\n");
}

// Standard output is the program's: the engine's log is elsewhere.
TEST_F(BundleEngineTest, TheExampleRuns) {
  const fs::path log = folder_ / "log";
  const std::string output = RunExample(absl::StrCat((folder_ / "bundle").string(), " 1000 1001 1002"), log);
  std::istringstream lines(output);
  std::string line;
  for (int rank = 0; rank < 5; ++rank) {
    ASSERT_TRUE(std::getline(lines, line)) << output;
    EXPECT_THAT(line, ::testing::MatchesRegex("1[0-9]+ <[0-9,]+> -[0-9.]+")) << output;
    EXPECT_FALSE(line.starts_with("1000 ") || line.starts_with("1001 ") || line.starts_with("1002 ")) << output;
  }
  ASSERT_TRUE(std::getline(lines, line)) << output;
  EXPECT_THAT(line, ::testing::StartsWith("model "));
  ASSERT_TRUE(std::getline(lines, line)) << output;
  EXPECT_EQ(line, "exit 0");
  std::ostringstream logged;
  logged << std::ifstream(log).rdbuf();
  EXPECT_THAT(logged.str(), HasSubstr("model serving: "));
  EXPECT_EQ(RunExample((folder_ / "nothing").string(), log), "exit 1\n");
}

}  // namespace
}  // namespace beamline
