// SPDX-License-Identifier: Apache-2.0
//
// `beamline recommend` against a server with a fake engine.
#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <sys/stat.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/program.h"
#include "cli/binary.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loopback.h"
#include "server/test_certificates.h"
#include "testing/paths.h"

namespace beamline::server {
namespace {

using cli::Background;
using cli::Beamline;
using cli::Outcome;
using cli::Shell;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class RecommendVerb : public LoopbackTest {
 protected:
  Outcome Ask(const std::string& arguments) {
    return Beamline(absl::StrCat("recommend --target ", server_->address(), " ", arguments));
  }
};

TEST_F(RecommendVerb, SendsWhatItIsToldAndPrintsTheAnswer) {
  const Outcome outcome =
      Ask("--user u7 --items 5,99 --top-k 4 --beam 8,16,32 --items-per-sid 2 --max-per-author 3 --exclude-history "
          "--deny 1,2 --allow 5,6 "
          "--rule region=DE,AT --rule kind=a --priority sheddable --attribute degree=full --request-id r1");
  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  for (const char* part : {"user u7", "title 5", "(not in the catalogue)", "rank", "<1,0,0>", "-0.8750",
                           "0.607 0.779 0.882", "title 2", "model model-1", "catalogue catalogue-1", "request r1",
                           "beams 2,4,4", "kept fewer beams (step 2)", "encode cached", "ask for wider ones"}) {
    EXPECT_THAT(outcome.text, HasSubstr(part));
  }
  const RecommendRequest request = engine_.requests().at(0);
  EXPECT_EQ(request.user_id, "u7");
  EXPECT_EQ(request.history.size(), 2u);
  EXPECT_EQ(request.top_k, 4);
  EXPECT_EQ(request.items_per_sid, 2);
  EXPECT_EQ(request.max_per_author, 3);
  EXPECT_EQ(request.beam_widths, (std::vector<int>{8, 16, 32}));
  EXPECT_TRUE(request.exclude_history);
  EXPECT_EQ(request.eligibility.deny, (std::vector<ItemId>{1, 2}));
  EXPECT_EQ(request.eligibility.allow, (std::vector<ItemId>{5, 6}));
  ASSERT_EQ(request.eligibility.rule.size(), 2u);
  EXPECT_EQ(request.eligibility.rule[0].any_of, (std::vector<std::string>{"DE", "AT"}));
  EXPECT_EQ(request.priority, Priority::kSheddable);
  EXPECT_EQ(request.user_attributes.at(0).value, "full");
}

TEST_F(RecommendVerb, ShowsTheValuesOfAModelWithARanker) {
  EXPECT_THAT(Ask("--user u").text, ::testing::Not(HasSubstr("value")));
  engine_.set_answer([](const RecommendRequest&) -> absl::StatusOr<RecommendResult> {
    RecommendResult result = FakeResult();
    result.items[0].value = 1.25f;
    result.items[1].value = -0.5f;
    return result;
  });
  const std::string text = Ask("--user u").text;
  EXPECT_THAT(text, ::testing::ContainsRegex("SID +value +score"));
  EXPECT_THAT(text, ::testing::ContainsRegex("<1,0,0> +1.2500 +-0.8750"));
  EXPECT_THAT(text, HasSubstr("-0.5000"));
}

TEST_F(RecommendVerb, ReadsHistoryFromStandardInputAndPrintsJson) {
  const Outcome outcome = Beamline(
      absl::StrCat("recommend --json --history - --target ", server_->address(), " <<'END'\n5 100 9 like\n6\nEND\n"));
  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.text, AllOf(StartsWith("{"), HasSubstr("\"model_version\": \"model-1\"")));
  EXPECT_EQ(engine_.requests().at(0).history.at(0).labels, uint32_t{kLike});
}

TEST_F(RecommendVerb, StatusAndErrorsAreReadable) {
  EXPECT_THAT(Ask("--status").text,
              AllOf(StartsWith(absl::StrCat("ready, server ", ProgramBuild(), ", up ")), HasSubstr("model-1"),
                    HasSubstr("1234 parameters, ranker)"), HasSubstr("4 x 2 x 1")));
  const Outcome invalid = Ask("--user u --top-k 0");
  EXPECT_EQ(invalid.exit_code, 2);
  EXPECT_THAT(invalid.text, HasSubstr("INVALID_ARGUMENT: top_k: 0 is outside 1..1000"));
  engine_.set_answer([](const RecommendRequest&) { return absl::InternalError("non_finite_logits"); });
  EXPECT_EQ(Ask("--user u").exit_code, 1);
  engine_.set_answer([](const RecommendRequest&) { return absl::UnavailableError("the server is stopping"); });
  EXPECT_THAT(Ask("--user u").text, AllOf(HasSubstr("UNAVAILABLE: the server is stopping"),
                                          ::testing::Not(HasSubstr("is `beamline serve` running there?"))));
  engine_.set_answer([](const RecommendRequest&) { return absl::UnimplementedError(""); });  // as an admin listener's
  EXPECT_THAT(Ask("--user u").text, HasSubstr("UNIMPLEMENTED; is this a Beamline server, and the port that answers"));
  EXPECT_THAT(Beamline(absl::StrCat("reload --target ", server_->address())).text,
              HasSubstr("UNIMPLEMENTED; is this the server's admin listener (admin.port)"));
  engine_.set_mode(FakeEngine::Mode::kHold);
  const Outcome late = Ask("--user u --timeout-ms 200");
  EXPECT_EQ(late.exit_code, 1);
  EXPECT_THAT(late.text, HasSubstr("--timeout-ms"));
  const std::string target = server_->address();
  server_->Shutdown();
  const Outcome gone = Beamline(absl::StrCat("recommend --user u --target ", target));
  EXPECT_EQ(gone.exit_code, 1);
  EXPECT_THAT(gone.text, HasSubstr("is `beamline serve` running there?"));
}

TEST_F(RecommendVerb, WhatCannotBeSentIsNamedByItsFlag) {
  const auto refused = [&](const std::string& arguments) {
    const Outcome outcome = Ask(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
    return outcome.text;
  };
  EXPECT_EQ(refused("--user a$(printf '\\377')"), "beamline recommend: --user: 'a\\xff' is not UTF-8\n");
  EXPECT_THAT(refused("--user a --attribute b=$(printf '\\377')"), HasSubstr("--attribute: 'b=\\xff' is not UTF-8"));
  EXPECT_THAT(refused("--items="), HasSubstr("nobody to recommend to: name a user (--user) or some events"));
  EXPECT_TRUE(engine_.requests().empty());
  EXPECT_THAT(Shell(absl::StrCat(BEAMLINE_BINARY, " reload --bundle b$(printf '\\377') 2>&1")).text,
              HasSubstr("--bundle: 'b\\xff' is not UTF-8"));
}

TEST_F(RecommendVerb, SpeaksTlsAndShowsItsCertificate) {
  const TestAuthority authority("authority");
  const TlsFolder folder("tls");
  folder.WritePair(authority.Issue("server"));
  const Issued own = authority.Issue("client");
  const std::string ca = folder.Write("ca.pem", authority.certificate());
  const std::string certificate = folder.Write("client.pem", own.certificate);
  const std::string key = folder.Write("client.key", own.key);
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_tls()->set_certificate(folder.Path("server.pem"));
  config.mutable_tls()->set_key(folder.Path("server.key"));
  config.mutable_tls()->set_client_ca(ca);
  Start(config);
  const Outcome known = Ask(absl::StrCat("--status --tls-ca ", ca, " --tls-cert ", certificate, " --tls-key ", key));
  EXPECT_EQ(known.exit_code, 0) << known.text;
  EXPECT_THAT(known.text, StartsWith("ready, "));
  for (const std::string& flags :
       {std::string(), absl::StrCat("--tls-ca ", ca), absl::StrCat("--tls-ca ", certificate)}) {
    const Outcome refused = Ask("--status " + flags);
    EXPECT_EQ(refused.exit_code, 1) << refused.text;
    EXPECT_THAT(refused.text, HasSubstr("is --tls-ca given")) << flags;
  }
  const std::pair<std::string, std::string> mistakes[] = {
      {"--tls-ca /nowhere.pem", "--tls-ca: cannot open /nowhere.pem"},
      {absl::StrCat("--tls-ca ", BEAMLINE_SOURCE_DIR, "/LICENSE"), "LICENSE is not in PEM"},
      {absl::StrCat("--tls-ca ", ca, " --tls-cert ", certificate), "--tls-key"},
      {absl::StrCat("--tls-cert ", certificate, " --tls-key ", key), "--tls-ca"}};
  for (const auto& [flags, mention] : mistakes) {
    const Outcome mistake = Ask("--status " + flags);
    EXPECT_EQ(mistake.exit_code, 2) << flags;
    EXPECT_THAT(mistake.text, HasSubstr(mention));
  }
}

// The first Ctrl-C is enough, whatever the command waits for.
TEST_F(RecommendVerb, CtrlCEndsTheWaitForAnAnswer) {
  engine_.set_mode(FakeEngine::Mode::kHold);
  Background process(absl::StrCat("recommend --user u --timeout-ms 600000 --target ", server_->address()),
                     ::testing::TempDir() + "/waiting.log");
  ASSERT_TRUE(process.Await([&] { return !engine_.requests().empty(); })) << process.text();
  const absl::Time start = absl::Now();
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_EQ(process.text(),
            absl::StrCat("beamline recommend: interrupted while waiting for ", server_->address(), "\n"));
}

TEST(Recommend, CtrlCEndsTheWaitForStandardInput) {
  const std::string pipe = ::testing::TempDir() + "/never_written";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  // The shell opens the pipe for reading and writing, so that it stays open and empty.
  Background process(absl::StrCat("recommend --history - 0<>", pipe), ::testing::TempDir() + "/stdin.log");
  ASSERT_TRUE(process.AwaitInterruptible()) << process.text();
  process.Signal(SIGINT);
  EXPECT_EQ(process.Wait(), 130) << process.text();
  EXPECT_EQ(process.text(), "beamline recommend: interrupted\n");
}

}  // namespace
}  // namespace beamline::server
