// SPDX-License-Identifier: Apache-2.0
//
// kill -9 at random moments: while the server starts, while it answers, while it takes over a new model. It comes back
// without a manual step, and whichever model it then serves gives the answers it always gave. BEAMLINE_KILLS=100 for
// more than the usual few; BEAMLINE_KILL_SEED to see a run again.
#include <atomic>
#include <cstdlib>
#include <iostream>
#include <random>
#include <thread>

#include "absl/strings/numbers.h"
#include "deploy/answer_book.h"
#include "deploy/real_server.h"
#include "gmock/gmock.h"

namespace beamline::deploy {
namespace {

namespace fs = std::filesystem;

int FromEnvironment(const char* name, int otherwise) {
  const char* const text = std::getenv(name);
  int value = otherwise;
  EXPECT_TRUE(text == nullptr || absl::SimpleAtoi(text, &value)) << name;
  return value;
}

class KillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (int kind = 0; kind < 2; ++kind) {
      ASSERT_TRUE(runtime::testing::WriteTinyBundle(Bundle(kind), {.seed = static_cast<uint64_t>(1 + kind)}).ok());
      RealServer server(LoopbackAddress(1), {.engine = absl::StrCat("bundle: '", Bundle(kind), "'")});
      server.Start();
      ASSERT_TRUE(server.AwaitReady());
      book_.AskAll(server);
      EXPECT_EQ(server.Stop(SIGKILL), -SIGKILL);
    }
    ASSERT_EQ(book_.models(), 2u) << "two models, or nothing is shown";
    fs::remove_all(models_);  // of another case in this process
    fs::create_directories(models_);
    Publish();
  }

  static std::string Bundle(int kind) { return absl::StrCat(::testing::TempDir(), "/bundle", kind); }

  // The next version in the watched folder, of the kinds by turns.
  void Publish() {
    const std::string aside = models_ + "/incoming";
    fs::copy(Bundle(versions_ % 2), aside, fs::copy_options::recursive);
    fs::rename(aside, absl::StrCat(models_, "/", ++versions_));
  }

  // Calls until the server is gone.
  void AskUntilKilled(const RealServer& server) {
    const auto stub = v1::RecommendService::NewStub(Connect(server.target()));
    const std::vector<v1::RecommendRequest> requests = FixedRequests();
    for (size_t i = 0;; i = (i + 1) % requests.size()) {
      v1::RecommendResponse response;
      const grpc::Status status = Ask(*stub, requests[i], &response);
      if (!status.ok()) {
        EXPECT_TRUE(killed_.load()) << status.error_message() << "\n" << server.log();
        return;
      }
      book_.Check(i, response);
    }
  }

  void SleepUpTo(absl::Duration most) { absl::SleepFor(most * std::uniform_real_distribution<double>(0, 1)(random_)); }

  const std::string models_ = ::testing::TempDir() + "/models";
  int versions_ = 0;
  AnswerBook book_;
  std::atomic<bool> killed_{false};
  std::mt19937 random_{static_cast<uint32_t>(FromEnvironment("BEAMLINE_KILL_SEED", 1))};
};

TEST_F(KillTest, ComesBackWithTheSameAnswers) {
  const int kills = FromEnvironment("BEAMLINE_KILLS", 10);
  RealServer server(LoopbackAddress(1), {.engine = absl::StrCat("model_folder: '", models_, "' model_poll_ms: 10")});
  int starting = 0, serving = 0;
  absl::Duration start_time = absl::Seconds(1);
  while (starting + serving < kills && !HasFailure()) {
    const absl::Time begin = absl::Now();
    server.Start();
    ASSERT_TRUE(server.AwaitReady());
    start_time = absl::Now() - begin;
    book_.AskAll(server);
    killed_.store(false);
    std::thread caller([&] { AskUntilKilled(server); });
    if (serving % 2 == 1) Publish();
    SleepUpTo(absl::Milliseconds(300));
    killed_.store(true);
    EXPECT_EQ(server.Stop(SIGKILL), -SIGKILL);
    caller.join();
    ++serving;
    if (starting + serving == kills) break;
    server.Start();
    SleepUpTo(start_time);
    EXPECT_EQ(server.Stop(SIGKILL), -SIGKILL);
    ++starting;
  }
  server.Start();
  ASSERT_TRUE(server.AwaitReady());
  book_.AskAll(server);
  EXPECT_EQ(server.Stop(SIGTERM), 0);
  EXPECT_EQ(book_.models(), 2u) << "a model that nobody published";
  std::cout << serving << " kills while serving, " << starting << " while starting, " << versions_
            << " models published, " << book_.compared() << " answers compared\n";
}

}  // namespace
}  // namespace beamline::deploy
