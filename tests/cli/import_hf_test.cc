// SPDX-License-Identifier: Apache-2.0
//
// The whole way of a foreign checkpoint, by the binary alone: `beamline import hf` makes a bundle, `beamline serve`
// loads it, and `beamline recommend` gets the items whose SIDs and scores transformers' generate found
// (tests/golden/t5).
#include <array>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>
#include <signal.h>
#include <sys/wait.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "parity/golden_case.h"
#include "testing/paths.h"

namespace beamline::parity {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

// A command whose output is read line by line; a server is stopped at the end.
class Command {
 public:
  explicit Command(const std::string& arguments)
      : pipe_(popen(absl::StrCat("echo $$; exec ", BEAMLINE_BINARY, " ", arguments, " 2>&1").c_str(), "r")) {
    EXPECT_TRUE(absl::SimpleAtoi(Line(), &pid_));
  }
  ~Command() {
    if (pipe_ != nullptr) Stop();
  }
  std::string Line() {
    std::array<char, 4096> line;
    if (std::fgets(line.data(), line.size(), pipe_) == nullptr) return "";
    std::string text = line.data();
    while (!text.empty() && text.back() != '\n' && std::fgets(line.data(), line.size(), pipe_) != nullptr) {
      text += line.data();
    }
    return text;
  }
  std::string Rest() {
    std::string text;
    for (std::string line = Line(); !line.empty(); line = Line()) text += line;
    return text;
  }
  int Wait() {
    const int status = pclose(pipe_);
    pipe_ = nullptr;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  int Stop() {
    kill(pid_, SIGTERM);
    Rest();
    return Wait();
  }

 private:
  std::FILE* pipe_;
  int pid_ = 0;
};

std::string AwaitAddress(Command& server) {
  for (std::string line = server.Line(); !line.empty(); line = server.Line()) {
    const size_t found = line.find("server started: ");
    if (found == std::string::npos) continue;
    const size_t begin = line.find("address=") + 8;
    return line.substr(begin, line.find(' ', begin) - begin);
  }
  return "";
}

void CheckAnswer(const std::string& address, const GoldenRequest& request, size_t levels) {
  const std::vector<int> widths(levels, request.width);
  Command recommend(absl::StrCat("recommend --json --target ", address, " --items ",
                                 absl::StrJoin(request.history, ","), " --top-k 1000 --beam ",
                                 absl::StrJoin(widths, ",")));
  const std::string text = recommend.Rest();
  ASSERT_EQ(recommend.Wait(), 0) << text;
  const nlohmann::json answer = nlohmann::json::parse(text, nullptr, false);
  ASSERT_TRUE(answer.is_object() && answer.contains("items")) << text;
  std::vector<Scored> actual;
  for (const nlohmann::json& item : answer.at("items")) {
    Scored scored{.score = item.at("score").get<double>()};
    const nlohmann::json sid = item.value("sid", nlohmann::json::object());
    for (const nlohmann::json& code : sid.at("codes")) scored.sid.push_back(code.get<Code>());
    actual.push_back(scored);
  }
  Tally tally;
  Compare(request.expected, actual, absl::StrCat("width ", request.width), tally);
  EXPECT_EQ(tally.failed, 0) << absl::StrJoin(tally.failures, "\n");
}

// One LETTER index with four levels and one MiniOneRec info text with two; with and without a scored end token.
class ImportedModel : public ::testing::TestWithParam<const char*> {};

TEST_P(ImportedModel, ServesWhatTransformersAnswers) {
  const fs::path folder = fs::path(BEAMLINE_SOURCE_DIR) / "tests/golden/t5" / GetParam();
  const auto golden = ReadGoldenCase(folder);
  ASSERT_TRUE(golden.ok()) << golden.status();
  const fs::path bundle = fs::path(::testing::TempDir()) / absl::StrCat("cli_", GetParam());
  const runtime::ImportHfOptions& options = golden->import;
  Command import(absl::StrCat("import hf ", options.folder.string(), " --sid-index ", options.sid_index, " --dialect ",
                              options.dialect, " --id-offset 1 --levels ",
                              absl::StrJoin(options.index.level_sizes, ","), " --max-items ", options.max_items,
                              options.score_end ? " --score-end" : "", " --out ", bundle.string()));
  const std::string printed = import.Rest();
  ASSERT_EQ(import.Wait(), 0) << printed;
  EXPECT_THAT(printed, HasSubstr("(t5)"));
  EXPECT_THAT(printed, HasSubstr(" SIDs, ids 1 to "));

  Command server(absl::StrCat("serve --config ", BEAMLINE_SOURCE_DIR, "/configs/demo.textproto --port 0 --any-port ",
                              "--bundle ", bundle.string()));
  const std::string address = AwaitAddress(server);
  ASSERT_FALSE(address.empty());
  for (size_t i = 0; i < 6; ++i) CheckAnswer(address, golden->requests[i], options.index.level_sizes.size());
  EXPECT_EQ(server.Stop(), 0);
}

INSTANTIATE_TEST_SUITE_P(Golden, ImportedModel, ::testing::Values("relu_tied", "two_levels", "few_items_end"));

TEST(ImportHfVerb, SaysWhatIsWrong) {
  Command missing(absl::StrCat("import hf ", ::testing::TempDir(), " --sid-index none --out x"));
  EXPECT_THAT(missing.Rest(), HasSubstr("config.json"));
  EXPECT_EQ(missing.Wait(), 2);
}

}  // namespace
}  // namespace beamline::parity
