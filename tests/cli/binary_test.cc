// SPDX-License-Identifier: Apache-2.0
//
// The `beamline` binary as its users meet it: help, exit codes, --check-config. The verbs' own work is tested beside
// this and in their libraries.
#include "cli/binary.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <regex>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/util/json_util.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/program.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/test_certificates.h"
#include "testing/paths.h"

namespace beamline::server {
namespace {

using cli::Beamline;
using cli::Outcome;
using cli::Shell;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string WriteConfig(const std::string& text) {
  const std::string path = ::testing::TempDir() + "/config.textproto";
  std::ofstream(path) << text;
  return path;
}

TEST(Help, TeachesTheWholeJourneyInOrder) {
  const Outcome help = Beamline("--help");
  EXPECT_EQ(help.exit_code, 0);
  size_t at = 0;
  for (const char* step : {"beamline generate-data", "beamline tokenize", "beamline train", "beamline evaluate",
                           "beamline pack", "beamline serve", "beamline recommend"}) {
    const size_t found = help.text.find(step, at);
    ASSERT_NE(found, std::string::npos) << step;
    at = found;
  }
  EXPECT_EQ(Beamline("").exit_code, 2);
}

TEST(Help, EveryVerbHasItsOwn) {
  for (const char* verb : {"serve", "recommend", "import", "generate-data", "tokenize", "train", "evaluate", "pack",
                           "export", "inspect", "bench"}) {
    const Outcome help = Beamline(absl::StrCat(verb, " --help"));
    EXPECT_EQ(help.exit_code, 0) << verb;
    EXPECT_THAT(help.text, HasSubstr(absl::StrCat("beamline ", verb))) << verb;
  }
}

// As docker/install.sh gathers them, wherever they are moved to.
TEST(Binary, LibrariesBesideItComeBeforeThoseOfTheBuild) {
  const Outcome found = Shell(absl::StrCat(
      "unset LD_LIBRARY_PATH; cd ", ::testing::TempDir(), " && rm -rf moved && mkdir -p moved/bin moved/lib && cp ",
      BEAMLINE_BINARY, " moved/bin/ && cp -L $(ldd ", BEAMLINE_BINARY,
      " | awk '$1 == \"libc10.so\" { print $3 }') moved/lib/ && ldd moved/bin/beamline; rm -rf moved"));
  EXPECT_THAT(found.text, HasSubstr("libc10.so => "));
  EXPECT_THAT(found.text, HasSubstr("moved/bin/../lib/libc10.so"));
}

// GNU's OpenMP tells what it was loaded with; the last to tell is the process that runs the verb.
TEST(Binary, WaitingThreadsSleepUnlessToldToSpin) {
  const auto spins = [](const std::string& environment, const std::string& verb) {
    const Outcome help = Shell(absl::StrCat("env -u OMP_WAIT_POLICY -u GOMP_SPINCOUNT OMP_DISPLAY_ENV=VERBOSE ",
                                            environment, " ", BEAMLINE_BINARY, " ", verb, " --help"));
    EXPECT_EQ(help.exit_code, 0) << verb;
    EXPECT_THAT(help.text, HasSubstr(absl::StrCat("Usage: beamline ", verb)));
    constexpr char kCount[] = "GOMP_SPINCOUNT = '";
    const size_t at = help.text.rfind(kCount);
    return at == std::string::npos ? "" : help.text.substr(at + sizeof(kCount) - 1, 1);
  };
  if (spins("", "inspect").empty()) GTEST_SKIP() << "libtorch's OpenMP is not GNU's";
  for (const char* verb : {"train", "train-ranker", "evaluate", "serve", "bench"}) {
    EXPECT_EQ(spins("", verb), "0") << verb;
    EXPECT_NE(spins("OMP_WAIT_POLICY=active", verb), "0") << verb;
  }
}

TEST(Usage, MistakesExitWithTwoAndSayWhatIsWrong) {
  EXPECT_EQ(Beamline("--version").text, absl::StrCat("beamline ", ProgramBuild(), "\n"));
  for (const char* arguments : {"fly", "serve", "serve --config", "serve --config a --nonsense", "recommend --top-k x",
                                "recommend --timeout-ms 0", "recommend --data a --items 1"}) {
    const Outcome outcome = Beamline(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments;
    EXPECT_FALSE(outcome.text.empty()) << arguments;
  }
}

TEST(Usage, NamesTheWordOrValueThatIsWrong) {
  EXPECT_THAT(Beamline("frobnicate").text, HasSubstr("no verb 'frobnicate'"));
  EXPECT_THAT(Beamline("tokenize --events a --out b --dialect nonsense").text, HasSubstr("--dialect: 'nonsense'"));
  EXPECT_THAT(Beamline("generate-data catalogue --items 10 --out /nowhere/at/all").text,
              HasSubstr("--out: /nowhere/at is not a folder"));
  EXPECT_THAT(Beamline("recommend --user u --attribute degree").text, HasSubstr("\"degree\" is not NAME=VALUE"));
  EXPECT_THAT(Beamline(absl::StrCat("recommend --history ", ::testing::TempDir())).text, HasSubstr("is a folder"));
  EXPECT_THAT(Beamline("recommend --history /dev/zero").text,
              HasSubstr("--history: /dev/zero: more than 67108864 bytes"));
  EXPECT_THAT(Beamline("bench --server 127.0.0.1:1 --json x.json --samples x.json").text,
              HasSubstr("two of them name x.json"));
}

// What CLI11 finds wrong reads like what we find: one line with the verb, the flag, the value, the limits, the way out.
TEST(Usage, ErrorsOfTheCommandLineSayWhatToDo) {
  const auto expect = [](const std::string& arguments, const std::string& line) {
    const Outcome outcome = Beamline(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << arguments;
    EXPECT_EQ(outcome.text, line + "`\n");
  };
  expect("tokenize --threads 1000000",
         "beamline tokenize: --threads: '1000000' must be a whole number, 0..1024; see `beamline tokenize --help");
  expect("train --dropout=-1", "beamline train: --dropout: '-1' must be a number, 0..0.95; see `beamline train --help");
  expect("train --batch 2.5",
         "beamline train: --batch: '2.5' must be a whole number, 1..65536; see `beamline train --help");
  expect("inspect x --item 99999999999999999999",
         "beamline inspect: --item: '99999999999999999999' must be a whole number, 0 or more; see `beamline inspect "
         "--help");
  expect("generate-data catalogue --levels 9",
         "beamline generate-data catalogue: --levels: '9' must be a whole number, 1..8; see `beamline generate-data "
         "catalogue --help");
  expect("recommend --beam 64,wide",
         "beamline recommend: --beam: 'wide' must be a whole number, 0..4294967295; see `beamline recommend --help");
  expect("evaluate --split training",
         "beamline evaluate: --split: training not in {test,validation,both}; see `beamline evaluate --help");
  expect("pack", "beamline pack: --tokenizer is required; see `beamline pack --help");
  expect("generate-data",
         "beamline generate-data: needs one of log, catalogue, vectors; see `beamline generate-data --help");
  expect("generate-data logs",
         "beamline generate-data: 'logs' is none of log, catalogue, vectors; see `beamline generate-data --help");
  expect("serve --config a --nonsense",
         "beamline serve: The following argument was not expected: --nonsense; see `beamline serve --help");
}

// Every option that takes a number states its limits in the help, and names them when it refuses a word.
TEST(Usage, EveryNumberHasLimits) {
  int numbers = 0;
  for (const char* verb :
       {"serve", "recommend", "reload", "import kuairand", "import sequences", "import amazon", "import hf",
        "generate-data log", "generate-data catalogue", "tokenize", "train", "evaluate", "pack", "inspect", "bench"}) {
    const std::string help = Beamline(absl::StrCat(verb, " --help")).text;
    for (const std::string& line : std::vector<std::string>(absl::StrSplit(help, '\n'))) {
      const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
      if (words.size() < 2 || !absl::StartsWith(words[0], "--")) continue;
      const std::string& type = words[1];
      const bool number = absl::StartsWith(type, "INT") || absl::StartsWith(type, "UINT") ||
                          absl::StartsWith(type, "FLOAT") || absl::StartsWith(type, "N:") ||
                          absl::StartsWith(type, "N[");
      if (!number) continue;
      ++numbers;
      const Outcome outcome = Beamline(absl::StrCat(verb, " ", words[0], "=zebra"));
      EXPECT_EQ(outcome.exit_code, 2) << line;
      EXPECT_THAT(outcome.text, HasSubstr(absl::StrCat("beamline ", verb, ": ", words[0], ": 'zebra' must be a ")))
          << line;
    }
  }
  EXPECT_GT(numbers, 50);
}

TEST(Train, FreshDoesNotTouchTheOldModelBeforeTheRunIsChecked) {
  const std::string folder = ::testing::TempDir() + "/old_model";
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/model.safetensors") << "weights of weeks";
  EXPECT_EQ(Beamline(absl::StrCat("train --fresh --data /nowhere --tokenizer /nowhere --out ", folder)).exit_code, 2);
  EXPECT_TRUE(std::filesystem::exists(folder + "/model.safetensors"));
}

TEST(CheckConfig, SaysAllThatIsWrongAtOnce) {
  const std::string path =
      WriteConfig("listen { port: 99999 }\nengine { thread: 2 }\nlimits { max_batch_users: -1 }\n");
  const Outcome outcome = Beamline(absl::StrCat("serve --check-config --config ", path));
  EXPECT_EQ(outcome.exit_code, 2);
  const std::vector<std::string> lines = absl::StrSplit(outcome.text, '\n', absl::SkipEmpty());
  ASSERT_EQ(lines.size(), 4u) << outcome.text;
  const std::string prefix = absl::StrCat("beamline serve: ", path);
  EXPECT_THAT(lines[0], AllOf(StartsWith(prefix + ":1: listen.port: 99999"), HasSubstr("1..65535")));
  EXPECT_THAT(lines[1], AllOf(StartsWith(prefix + ":2: thread"), HasSubstr("did you mean threads?")));
  EXPECT_THAT(lines[2], StartsWith(prefix + ":3: limits.max_batch_users: -1"));
  EXPECT_THAT(lines[3], AllOf(StartsWith(prefix + ": engine.bundle: missing"), HasSubstr("--bundle")));
}

// But for a bundle, which is none here (verbs_test.cc has one).
TEST(CheckConfig, AcceptsTheExamples) {
  for (const char* name : {"demo", "server"}) {
    const Outcome outcome = Beamline(absl::StrCat("serve --check-config --config ", BEAMLINE_SOURCE_DIR, "/configs/",
                                                  name, ".textproto --bundle ", ::testing::TempDir()));
    EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
    EXPECT_THAT(outcome.text, AllOf(StartsWith("beamline serve: --bundle: "), HasSubstr("has no bundle.json")));
    EXPECT_EQ(std::count(outcome.text.begin(), outcome.text.end(), '\n'), 1) << outcome.text;
  }
}

TEST(CheckConfig, FilesThatAreNoneExitWithTwoAndOneLine) {
  const std::string folder = ::testing::TempDir();
  for (const std::string& path : {folder + "/missing.textproto", folder, WriteConfig(""), std::string("/dev/zero"),
                                  std::string(BEAMLINE_BINARY)}) {
    const Outcome outcome = Beamline(absl::StrCat("serve --check-config --config ", path));
    EXPECT_EQ(outcome.exit_code, 2) << path;
    EXPECT_THAT(outcome.text, AllOf(StartsWith("beamline serve: "), HasSubstr(path)));
    EXPECT_EQ(std::count(outcome.text.begin(), outcome.text.end(), '\n'), 1) << outcome.text;
  }
}

TEST(Usage, OutputThatCannotBeWrittenIsAnError) {
  const std::string path = WriteConfig(absl::StrCat("engine { model_folder: '", ::testing::TempDir(), "' }\n"));
  for (const char* stream : {">/dev/full", ">&-"}) {
    const Outcome outcome =
        Shell(absl::StrCat("{ ", BEAMLINE_BINARY, " serve --check-config --config ", path, " ", stream, "; }"));
    EXPECT_EQ(outcome.exit_code, 1) << stream;
    EXPECT_THAT(outcome.text, AllOf(StartsWith("beamline serve: cannot write to standard output: "))) << stream;
  }
}

TEST(Serve, RefusesABundleThatIsNone) {
  const std::string folder = ::testing::TempDir() + "/no_bundle";
  std::filesystem::create_directories(folder);
  const Outcome outcome = Beamline(absl::StrCat("serve --config ", BEAMLINE_SOURCE_DIR,
                                                "/configs/demo.textproto --port 0 --any-port --bundle ", folder));
  EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
  EXPECT_THAT(outcome.text, HasSubstr(folder));
}

TEST(CheckConfig, WarnsOfACertificateThatExpired) {
  const TestAuthority authority("authority");
  const TlsFolder folder("expired");
  folder.WritePair(authority.Issue("server", "IP:127.0.0.1", -60));
  const std::string path =
      WriteConfig(absl::StrCat("tls { certificate: '", folder.Path("server.pem"), "' key: '", folder.Path("server.key"),
                               "' }\n", "engine { model_folder: '", ::testing::TempDir(), "' }\n"));
  const std::string check = absl::StrCat("serve --check-config --config ", path);
  const Outcome expired = Beamline(check);
  EXPECT_EQ(expired.exit_code, 0);
  EXPECT_THAT(expired.text, AllOf(HasSubstr("warning: tls.certificate: "), HasSubstr("server.pem expired on 20")));
  folder.Write("server.key", authority.Issue("another").key);
  const Outcome wrong = Beamline(check);
  EXPECT_EQ(wrong.exit_code, 2);
  EXPECT_THAT(wrong.text, AllOf(HasSubstr(path + ":1: tls.key: "), HasSubstr("is not the key of the certificate")));
}
// Every grpcurl line that we print or write down: the method exists, and its JSON is the method's request.
TEST(Recommend, GrpcurlExamplesAreRight) {
  std::string text = absl::StrCat(Beamline("recommend --help").text, Beamline("serve --help").text);
  for (const char* file :
       {"README.md", "scripts/demo.sh", "proto/beamline/v1/recommend.proto", "proto/beamline/v1/catalogue.proto",
        "proto/beamline/v1/model.proto", "proto/beamline/v1/admin.proto"}) {
    absl::StrAppend(&text, cli::Slurp(std::filesystem::path(BEAMLINE_SOURCE_DIR) / file));
  }
  text = std::regex_replace(text, std::regex(R"(\\\n(//)?\s*)"), "");  // lines that go on
  const std::regex call(R"re(grpcurl -plaintext (?:-d '([^']*)' )?\S+ (beamline[\w.]*)/(\w+))re");
  int calls = 0;
  for (std::sregex_iterator it(text.begin(), text.end(), call), end; it != end; ++it, ++calls) {
    const auto* service = google::protobuf::DescriptorPool::generated_pool()->FindServiceByName((*it)[2]);
    ASSERT_NE(service, nullptr) << it->str();
    const auto* method = service->FindMethodByName((*it)[3]);
    ASSERT_NE(method, nullptr) << it->str();
    if (!(*it)[1].matched) continue;
    const std::unique_ptr<google::protobuf::Message> request(
        google::protobuf::MessageFactory::generated_factory()->GetPrototype(method->input_type())->New());
    const auto parsed = google::protobuf::util::JsonStringToMessage((*it)[1].str(), request.get());
    EXPECT_TRUE(parsed.ok()) << it->str() << "\n" << parsed.ToString();
  }
  EXPECT_GE(calls, 10) << text;
}

}  // namespace
}  // namespace beamline::server
