// SPDX-License-Identifier: Apache-2.0
//
// Signals, exit codes and the watchdog of a whole process: tests/server/fake_serve.cc.
#include <array>
#include <cstdio>
#include <future>
#include <string>

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/loopback.h"

namespace beamline::server {
namespace {

using ::testing::HasSubstr;

class Process {
 public:
  Process(const std::string& mode, const std::string& grace_ms) {
    std::array<int, 2> ends;
    EXPECT_EQ(pipe(ends.data()), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, ends[0]);
    std::string program = BEAMLINE_FAKE_SERVE, mode_argument = mode, grace_argument = grace_ms;
    std::array<char*, 4> arguments = {program.data(), mode_argument.data(), grace_argument.data(), nullptr};
    EXPECT_EQ(posix_spawn(&pid_, program.c_str(), &actions, nullptr, arguments.data(), environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    out_ = fdopen(ends[0], "r");
  }
  ~Process() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Wait();
    }
    std::fclose(out_);
  }

  // Reads the log up to a line with `text` and returns it; empty at the end of the log.
  std::string AwaitLog(const std::string& text) {
    std::array<char, 4096> line;
    while (std::fgets(line.data(), line.size(), out_) != nullptr) {
      if (std::string(line.data()).find(text) != std::string::npos) return line.data();
    }
    return "";
  }
  std::string AwaitAddress() {
    const std::string line = AwaitLog("server started: ");
    const size_t begin = line.find("address=") + 8;
    return line.empty() ? "" : line.substr(begin, line.find(' ', begin) - begin);
  }
  void Signal(int number) { kill(pid_, number); }
  // The exit code, or minus the signal that killed it.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = 0;
  std::FILE* out_ = nullptr;
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

void AwaitInFlight(const std::string& address, int64_t calls) {
  const auto stub = v1::ModelService::NewStub(Connect(address));
  EXPECT_TRUE(Eventually([&] {
    grpc::ClientContext context;
    SetTimeout(context);
    v1::GetStatusResponse status;
    return stub->GetStatus(&context, {}, &status).ok() && status.server().in_flight() == calls + 1;
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

TEST(Process, ASignalWhileLoadingEndsItAtOnce) {
  Process process("slow-load", "5000");
  ASSERT_NE(process.AwaitLog("loading: "), "");
  const absl::Time start = absl::Now();
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 130);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
}

TEST(Process, ABundleThatCannotBeLoadedEndsIt) {
  Process process("bad-bundle", "5000");
  EXPECT_EQ(process.Wait(), 7);
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

TEST(Process, ASecondSignalSkipsTheGraceTime) {
  Process process("hang", "600000");
  const std::string address = process.AwaitAddress();
  std::future<grpc::Status> call = RecommendFrom(address);
  AwaitInFlight(address, 1);
  const absl::Time start = absl::Now();
  process.Signal(SIGTERM);
  process.AwaitLog("server stopping");
  process.Signal(SIGTERM);
  EXPECT_EQ(process.Wait(), 1);
  EXPECT_LT(absl::Now() - start, absl::Seconds(5));
  EXPECT_FALSE(call.get().ok());
}

}  // namespace
}  // namespace beamline::server
