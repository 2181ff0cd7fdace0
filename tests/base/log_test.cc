// SPDX-License-Identifier: Apache-2.0
//
// Each case in a child process: the logger is chosen once. They leave by _exit, so that the temporary folder stays.
#include "base/log.h"

#include <cstdio>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/json.h"
#include "base/log_limiter.h"
#include "base/log_output.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "spdlog/sinks/basic_file_sink.h"

namespace beamline {
namespace {

std::string Slurp(const std::string& path) {
  std::ifstream stream(path);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

TEST(LogDeathTest, GoesToStandardErrorAndNothingToStandardOutput) {
  const std::string out = ::testing::TempDir() + "/log_test.out";
  EXPECT_EXIT(
      {
        if (std::freopen(out.c_str(), "w", stdout) == nullptr) _exit(1);
        Log().info("model loading: id={}", 7);
        std::fflush(stdout);
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "model loading: id=7");
  EXPECT_EQ(Slurp(out), "");
}

TEST(LogDeathTest, GoesToTheLoggerOfTheProgram) {
  const std::string file = ::testing::TempDir() + "/log_test.log";
  EXPECT_EXIT(
      {
        spdlog::basic_logger_mt("beamline", file, true);
        Log().info("model loading: id={}", 8);
        Log().flush();
        _exit(0);
      },
      ::testing::ExitedWithCode(0), "^$");
  EXPECT_NE(Slurp(file).find("model loading: id=8"), std::string::npos);
}

// Runs `write` in a child whose log goes to a file; its lines.
template <typename Write>
std::vector<std::string> LinesOf(bool json, const Write& write) {
  const std::string file = ::testing::TempDir() + "/log_test.lines";
  const auto child = [&] {
    const int fd = open(file.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    spdlog::register_logger(MakeLogger("beamline", {.json = json, .fd = fd}));
    write();
    _exit(0);
  };
  EXPECT_EXIT(child(), ::testing::ExitedWithCode(0), "");
  std::vector<std::string> lines;
  std::ifstream stream(file);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}

void WriteOfEveryKind() {
  LogEvent(spdlog::level::info, "kinds", {{"id", 7}, {"huge", uint64_t{1} << 62}, {"real", 0.5}, {"on", true}});
  LogEvent(spdlog::level::warn, "texts",
           {{"plain", "/srv/models/7"}, {"empty", ""}, {"hostile", "a \"b\"\n{}\\\x01\x7f"}, {"utf8", "\xc3\xa9"}});
  LogEvent(spdlog::level::err, "bytes", {{"broken", "a\xff\xfe"}});
  Log().info("a line that is no event: {}", "\"quoted\"\n");
  LogEvent(spdlog::level::debug, "below the level");
}

TEST(LogDeathTest, JsonIsOneObjectPerLine) {
  const std::vector<std::string> lines = LinesOf(true, WriteOfEveryKind);
  ASSERT_EQ(lines.size(), 4u);
  std::vector<nlohmann::json> objects;
  for (const std::string& line : lines) objects.push_back(nlohmann::json::parse(line));
  EXPECT_EQ(objects[0]["event"], "kinds");
  EXPECT_EQ(objects[0]["level"], "info");
  EXPECT_EQ(objects[0]["id"], 7);
  EXPECT_EQ(objects[0]["huge"], uint64_t{1} << 62);
  EXPECT_EQ(objects[0]["real"], 0.5);
  EXPECT_EQ(objects[0]["on"], true);
  EXPECT_THAT(objects[0]["time"].get<std::string>(),
              ::testing::ContainsRegex("^20[0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[.][0-9]{3}Z$"));
  EXPECT_EQ(objects[1]["level"], "warning");
  EXPECT_EQ(objects[1]["hostile"], "a \"b\"\n{}\\\x01\x7f");
  EXPECT_EQ(objects[1]["utf8"], "\xc3\xa9");
  EXPECT_EQ(objects[2]["broken"], "a\xef\xbf\xbd\xef\xbf\xbd");
  EXPECT_EQ(objects[3]["message"], "a line that is no event: \"quoted\"\n");
}

TEST(LogDeathTest, TextIsOneLinePerEvent) {
  const std::vector<std::string> lines = LinesOf(false, [] {
    LogEvent(spdlog::level::info, "kinds", {{"id", 7}, {"on", true}});
    LogEvent(spdlog::level::warn, "texts", {{"plain", "/srv"}, {"empty", ""}, {"hostile", "a \"b\"\n\\"}});
  });
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_THAT(lines[0], ::testing::EndsWith("kinds: id=7 on=true"));
  EXPECT_THAT(lines[1], ::testing::EndsWith(R"(texts: plain=/srv empty="" hostile="a \"b\"\x0a\\")"));
}

TEST(LogDeathTest, AFloodOfOneEventIsAFewLinesAndLeavesOthersAlone) {
  const std::vector<std::string> lines = LinesOf(true, [] {
    const absl::Time start = absl::Now();
    for (int i = 0; i < 10000; ++i) LogEvent(spdlog::level::err, "flood", {{"i", i}});
    LogEvent(spdlog::level::info, "other");
    for (int i = 0; i < 20; ++i) LogEvent(spdlog::level::critical, "last words");
    absl::SleepFor(absl::Milliseconds(250));
    LogEvent(spdlog::level::err, "flood", {{"i", 10000}});
    LogEvent(spdlog::level::info, "done", {{"ms", absl::ToInt64Milliseconds(absl::Now() - start)}});
  });
  int floods = 0, others = 0, last_words = 0;
  int64_t told = 0, ms = 0;
  for (const std::string& line : lines) {
    const nlohmann::json object = nlohmann::json::parse(line);
    floods += object["event"] == "flood";
    others += object["event"] == "other";
    last_words += object["event"] == "last words";
    told += object.value("suppressed", 0);
    ms += object.value("ms", 0);
  }
  EXPECT_EQ(others, 1);
  EXPECT_EQ(last_words, 20);
  EXPECT_GE(floods, 11);
  EXPECT_LE(floods, 12 + ms / 100);
  EXPECT_EQ(floods + told, 10001) << "what was left out is told";
}

TEST(LogLimiter, GivesABurstAndThenARatePerClass) {
  LogLimiter limiter(10, 3);
  absl::Time now = absl::FromUnixSeconds(1000);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(limiter.Admit("a", now), 0u);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(limiter.Admit("a", now), std::nullopt);
  EXPECT_EQ(limiter.Admit("b", now), 0u);
  now += absl::Milliseconds(99);
  EXPECT_EQ(limiter.Admit("a", now), std::nullopt);
  now += absl::Milliseconds(2);
  EXPECT_EQ(limiter.Admit("a", now), 6u);
  EXPECT_EQ(limiter.Admit("a", now), std::nullopt);
  EXPECT_EQ(limiter.Admit("a", now - absl::Hours(1)), std::nullopt) << "a step back gives nothing";
  now += absl::Hours(1);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limiter.Admit("a", now).has_value());
  EXPECT_EQ(limiter.Admit("a", now), std::nullopt) << "never more than the burst";
}

TEST(LogOutput, AStuckReaderLosesLinesAndHoldsNobodyUp) {
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  const auto logger = MakeLogger("stuck", {.json = true, .fd = pipe_ends[1]});
  const uint64_t before = LostLogLines();
  const absl::Time start = absl::Now();
  constexpr int kLines = 1000;
  for (int i = 0; i < kLines; ++i) logger->info("{} {}", i, std::string(2000, 'x'));
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  const uint64_t lost = LostLogLines() - before;
  EXPECT_GT(lost, 900u);
  // A reader that comes back finds whole lines, but for the one that was cut off.
  const auto read_all = [&] {
    std::string all;
    ASSERT_EQ(fcntl(pipe_ends[0], F_SETFL, O_NONBLOCK), 0);
    char buffer[65536];
    for (ssize_t n; (n = read(pipe_ends[0], buffer, sizeof(buffer))) > 0;) all.append(buffer, n);
    std::istringstream stream(all);
    for (std::string line; std::getline(stream, line);) {
      if (line.empty() || !absl::StartsWith(line, "{")) continue;
      const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
      if (object.is_discarded()) {
        EXPECT_FALSE(absl::EndsWith(line, "}")) << "only what was cut off";
      }
    }
  };
  read_all();
  logger->info("again");
  std::string all(4096, 0);
  const ssize_t n = read(pipe_ends[0], all.data(), all.size());
  ASSERT_GT(n, 0);
  all.resize(n);
  const size_t at = all.rfind('{');
  ASSERT_NE(at, std::string::npos);
  EXPECT_EQ(nlohmann::json::parse(all.substr(at))["message"], "again");
  close(pipe_ends[0]);
  close(pipe_ends[1]);
}

}  // namespace
}  // namespace beamline
