// SPDX-License-Identifier: Apache-2.0
//
// Signals, exit codes and the watchdog of a whole process: tests/server/fake_serve.cc.
#include "testing/process.h"

#include <fstream>
#include <future>
#include <string>
#include <vector>

#include <signal.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "httplib.h"
#include "server/lifecycle.h"
#include "server/loopback.h"

namespace beamline::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class Process : public testing::Process {
 public:
  Process(const std::string& mode, const std::string& grace_ms, const std::vector<std::string>& environment = {})
      : testing::Process({BEAMLINE_FAKE_SERVE, mode, grace_ms}, environment) {}
  std::string AwaitAddress() const {
    const std::string line = AwaitLog("server started: ");
    const size_t begin = line.find("address=") + 8;
    return line.empty() ? "" : line.substr(begin, line.find(' ', begin) - begin);
  }
  // Of the admin pages; 0: not there.
  int64_t Metric(const std::string& name) const {
    const std::string line = AwaitLog(" http=");
    const size_t begin = line.find(" http=") + 6;
    httplib::Client client(absl::StrCat("http://", line.substr(begin, line.find(' ', begin) - begin)));
    const httplib::Result page = client.Get("/metrics");
    if (!page) return 0;
    const size_t value = page->body.find("\n" + name + " ");
    return value == std::string::npos ? 0 : static_cast<int64_t>(std::stod(page->body.substr(value + name.size() + 2)));
  }
};

std::future<grpc::Status> RecommendFrom(const std::string& address) {
  return std::async(std::launch::async, [address] {
    const auto stub = v1::RecommendService::NewStub(Connect(address));
    v1::RecommendRequest request;
    request.set_user_id("u");
    v1::RecommendResponse response;
    grpc::ClientContext context;
    SetTimeout(context);
    return stub->Recommend(&context, request, &response);
  });
}

// Until the engine has them: the server counts a call before it has read what decides whether it is let in.
void AwaitInFlight(const std::string& address, int64_t calls) {
  const auto stub = v1::ModelService::NewStub(Connect(address));
  EXPECT_TRUE(Eventually([&] {
    grpc::ClientContext context;
    SetTimeout(context);
    v1::GetStatusResponse status;
    return stub->GetStatus(&context, {}, &status).ok() && status.engine().in_flight() == calls;
  }));
}

TEST(Process, StopsCleanlyOnEitherSignal) {
  for (int number : {SIGTERM, SIGINT}) {
    Process process("answer", "5000");
    const std::string address = process.AwaitAddress();
    EXPECT_TRUE(RecommendFrom(address).get().ok());
    process.Signal(number);
    EXPECT_THAT(process.AwaitLog("server stopped"), HasSubstr("calls=1"));
    EXPECT_EQ(process.Wait(), 0);
  }
}

TEST(Process, FinishesCallsInFlightOnSigterm) {
  Process process("slow-answer", "5000");
  const std::string address = process.AwaitAddress();
  std::future<grpc::Status> call = RecommendFrom(address);
  AwaitInFlight(address, 1);
  process.Signal(SIGTERM);
  EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(process.Wait(), 0);
}

TEST(Process, SignalsThatComeTogetherAreOneWish) {
  Process process("slow-answer", "5000");
  const std::string address = process.AwaitAddress();
  std::future<grpc::Status> call = RecommendFrom(address);
  AwaitInFlight(address, 1);
  process.Signal(SIGTERM);  // as timeout(1) does: the process, then its group
  absl::SleepFor(absl::Milliseconds(2));
  process.Signal(SIGTERM);
  EXPECT_TRUE(call.get().ok());
  EXPECT_EQ(process.Wait(), 0);
}

TEST(Process, WhatGrpcLogsIsWrittenWhereTheOperatorAsks) {
  for (const bool asked : {false, true}) {
    const std::vector<std::string> environment(asked ? 1 : 0, "GRPC_VERBOSITY=debug");
    Process process("answer", "5000", environment);
    EXPECT_TRUE(RecommendFrom(process.AwaitAddress()).get().ok());
    process.Signal(SIGTERM);
    EXPECT_EQ(process.Wait(), 0);
    EXPECT_EQ(absl::StrContains(process.Log(), "Using polling engine"), asked) << process.Log();
  }
}

TEST(Process, ASignalWhileLoadingEndsItAtOnce) {
  Process process("slow-load", "5000");
  ASSERT_NE(process.AwaitLog("loading: "), "");
  const absl::Time start = absl::Now();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_NE(process.AwaitLog("stopped while loading"), "");
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST(Process, HangupsAndBrokenPipesStopNothing) {
  Process process("slow-answer", "5000");
  const std::string address = process.AwaitAddress();
  std::future<grpc::Status> call = RecommendFrom(address);
  for (int i = 0; i < 1000; ++i) process.Signal(i % 2 == 0 ? SIGHUP : SIGPIPE);
  EXPECT_TRUE(call.get().ok());
  EXPECT_NE(process.AwaitLog("SIGHUP received: nothing to do"), "");
  EXPECT_TRUE(RecommendFrom(address).get().ok());
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 0);
}

// Row C7.7: neither does a stop end early, nor does what is told once a second fall silent.
TEST(Process, StepsOfTheSystemsClockChangeNothing) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "AddressSanitizer wants to be loaded first";
#endif
  const std::string file = ::testing::TempDir() + "/clock_step";
  const auto step = [&file](int seconds) { std::ofstream(file) << seconds; };
  step(0);
  Process process("slower-answer", "5000",
                  {absl::StrCat("LD_PRELOAD=", BEAMLINE_CLOCK_STEP), "BEAMLINE_CLOCK_STEP_FILE=" + file});
  const std::string address = process.AwaitAddress();
  process.Signal(SIGHUP);
  ASSERT_NE(process.AwaitLog("SIGHUP received"), "");
  step(-3600);
  absl::SleepFor(absl::Milliseconds(1100));
  process.Signal(SIGHUP);
  EXPECT_TRUE(Eventually([&] {
    return std::vector<std::string>(absl::StrSplit(process.Log(), "SIGHUP received")).size() == 3;
  })) << process.Log();
  // What is shown is the system's time all the same: Prometheus compares it with its own.
  const absl::Time told = absl::FromUnixSeconds(process.Metric("beamline_last_success_timestamp_seconds"));
  EXPECT_LT(absl::AbsDuration(told - (absl::Now() - absl::Hours(1))), absl::Seconds(30)) << told;
  std::future<grpc::Status> call = RecommendFrom(address);
  AwaitInFlight(address, 1);
  process.Signal(SIGTERM);
  ASSERT_NE(process.AwaitLog("server stopping"), "");
  step(3600);
  EXPECT_EQ(call.wait_for(std::chrono::seconds(0)), std::future_status::timeout) << "answered before the step";
  const grpc::Status status = call.get();
  EXPECT_TRUE(status.ok()) << status.error_message() << "\n" << process.Log();
  EXPECT_EQ(process.Wait(), 0) << process.Log();
}

TEST(Process, ABundleThatCannotBeLoadedEndsIt) {
  Process process("bad-bundle", "5000");
  EXPECT_EQ(process.Wait(), 7);
}

// As after a CUDA error that lasts as long as the process.
TEST(Process, AFaultOfTheEngineEndsIt) {
  Process process("fault", "600000");
  const std::string address = process.AwaitAddress();
  EXPECT_THAT(process.AwaitLog("server started: "), HasSubstr(" device=fake ")) << "as the engine has it";
  const absl::Time start = absl::Now();
  const grpc::Status status = RecommendFrom(address).get();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_THAT(status.error_message(), HasSubstr("an illegal memory access"));
  EXPECT_THAT(process.AwaitLog("engine broken, this process ends", absl::Seconds(10)),
              AllOf(HasSubstr("critical"), HasSubstr("an illegal memory access")));
  if (process.AwaitLog("server stopped", absl::Seconds(10)).empty()) process.Signal(SIGKILL);
  EXPECT_EQ(process.Wait(), 7);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST(Process, TheWatchdogEndsAProcessWhoseEngineHangs) {
  Process process("hang", "500");
  const std::string address = process.AwaitAddress();
  std::future<grpc::Status> call = RecommendFrom(address);
  AwaitInFlight(address, 1);
  const absl::Time start = absl::Now();
  process.Signal(SIGTERM);
  EXPECT_NE(process.AwaitLog("did not stop in time"), "");
  EXPECT_EQ(process.Wait(), 1);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_FALSE(call.get().ok());
}

TEST(Process, TheWatchdogIsArmedByTheSignalItself) {
  Process process("hang-in-status", "300");
  process.AwaitAddress();
  const absl::Time start = absl::Now();
  process.Signal(SIGTERM);
  if (process.AwaitLog("did not stop in time", absl::Seconds(10)).empty()) process.Signal(SIGKILL);
  EXPECT_EQ(process.Wait(), 1);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST(Process, ASecondSignalSkipsTheGraceTime) {
  Process process("hang", "600000");
  const std::string address = process.AwaitAddress();
  std::future<grpc::Status> call = RecommendFrom(address);
  AwaitInFlight(address, 1);
  process.Signal(SIGTERM);
  process.AwaitLog("server stopping");
  absl::SleepFor(kOneWish);
  const absl::Time start = absl::Now();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 1);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_FALSE(call.get().ok());
}

}  // namespace
}  // namespace beamline::server
