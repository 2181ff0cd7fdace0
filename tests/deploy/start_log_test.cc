// SPDX-License-Identifier: Apache-2.0
//
// The life of a real server as its log tells it, in JSON: the order of the start, what was loaded and warmed up, the
// stop; what a second server on the same ports says; and the flight recorder on the way down.
#include <atomic>
#include <csignal>
#include <filesystem>
#include <sstream>
#include <thread>

#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "base/program.h"
#include "deploy/real_server.h"
#include "gmock/gmock.h"
#include "httplib.h"

namespace beamline::deploy {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

class StartLogTest : public ::testing::Test {
 protected:
  void SetUp() override {
    bundle_ = ::testing::TempDir() + "/bundle";
    ASSERT_TRUE(runtime::testing::WriteTinyBundle(bundle_).ok());
  }
  std::unique_ptr<RealServer> Started() const {
    auto server = std::make_unique<RealServer>(
        LoopbackAddress(1),
        RealServerConfig{.engine = absl::StrCat("bundle: '", bundle_, "'"), .more = "log { format: 'json' }"});
    server->Start();
    const std::string line = server->process().AwaitLog("\"event\":\"admin\"");
    EXPECT_NE(line, "") << server->log();
    return server;
  }
  // The admin page says 200, now or within `patience`.
  static bool Says(const char* page, absl::Duration patience) {
    httplib::Client admin(absl::StrCat("http://", LoopbackAddress(1), ":50053"));
    const absl::Time end = absl::Now() + patience;
    while (true) {
      const httplib::Result result = admin.Get(page);
      if (result && result->status == 200) return true;
      if (absl::Now() >= end) return false;
      absl::SleepFor(absl::Milliseconds(50));
    }
  }
  // Every line must be an object.
  static std::vector<json> Lines(const std::string& log) {
    std::vector<json> lines;
    std::istringstream stream(log);
    for (std::string line; std::getline(stream, line);) {
      lines.push_back(json::parse(line, nullptr, false));
      EXPECT_TRUE(lines.back().is_object()) << line;
    }
    return lines;
  }

  std::string bundle_;
};

// Row C7.5, where the log is a file that may not grow, or nothing at all.
TEST_F(StartLogTest, ALogThatIsFullOrAbsentEndsNothing) {
  for (const char* shell : {"ulimit -f 1; exec \"$@\"", "exec \"$@\" 2>&-", "exec \"$@\" <&- >&- 2>&-"}) {
    RealServer server(LoopbackAddress(1),
                      {.engine = absl::StrCat("bundle: '", bundle_, "'"), .lifecycle = "drain_delay_ms: 0"});
    server.StartBy({"/bin/sh", "-c", shell, "sh"});
    EXPECT_TRUE(Says("/readyz", absl::Seconds(60)));
    for (int i = 0; i < 2; ++i) {
      server.process().Signal(SIGHUP);  // a line, once a second
      absl::SleepFor(absl::Milliseconds(1100));
    }
    EXPECT_TRUE(Says("/livez", absl::ZeroDuration())) << shell;
    const std::filesystem::path stream = absl::StrCat("/proc/", server.pid(), "/fd/2");
    const std::string log = std::filesystem::read_symlink(stream).string();
    EXPECT_TRUE(log == "/dev/null" || log.find("socket") == std::string::npos) << shell << ": the log goes to " << log;
    v1::RecommendResponse response;
    const auto stub = v1::RecommendService::NewStub(Connect(server.target()));
    EXPECT_TRUE(Ask(*stub, FixedRequests()[3], &response).ok()) << shell;
    EXPECT_EQ(server.Stop(SIGTERM), 0) << shell;
    EXPECT_LE(server.log().size(), 1024u) << shell;
  }
}

TEST_F(StartLogTest, TellsTheWholeLifeInOrder) {
  const auto server = Started();
  v1::RecommendRequest request = FixedRequests()[3];
  request.set_user_id("canary-user");
  v1::RecommendResponse response;
  ASSERT_TRUE(Ask(*v1::RecommendService::NewStub(Connect(server->target())), request, &response).ok());
  EXPECT_EQ(server->Stop(SIGTERM), 0);
  const std::vector<json> lines = Lines(server->log());
  std::vector<std::string> events;
  for (const json& line : lines) {
    const std::string event = line.value("event", "");
    if (events.empty() || events.back() != event) events.push_back(event);
  }
  EXPECT_THAT(events, ElementsAre("loading", "model loading", "model warmed up", "model serving", "server started",
                                  "admin", "signal received", "server stopping", "server stopped"));
  EXPECT_EQ(lines[0]["bundle"], bundle_);
  EXPECT_EQ(absl::StrCat(lines[0].value("version", ""), " (", lines[0].value("commit", ""), ")"), ProgramBuild());
  EXPECT_EQ(lines[1]["path"], bundle_);
  EXPECT_EQ(lines[2]["model_version"], response.model_version());
  EXPECT_EQ(lines[2]["recorded_requests"], 0) << "nobody has asked yet";
  EXPECT_GT(lines[3]["load_ms"], 0);
  EXPECT_GT(lines[3]["warm_up_ms"], 0);
  EXPECT_EQ(lines[4]["model_version"], response.model_version());
  EXPECT_EQ(lines[4]["catalogue_version"], response.catalogue_version());
  EXPECT_GT(lines[4]["items"], 100);
  EXPECT_EQ(lines[4]["device"], "cpu");
  EXPECT_EQ(lines[4]["dtype"], "fp32");
  EXPECT_EQ(lines[4]["backend"], "cpu") << "what auto came to";
  EXPECT_THAT(server->log(), Not(HasSubstr("canary")));
}

TEST_F(StartLogTest, ASecondServerOnTheSamePortsFailsClearly) {
  const auto first = Started();
  // All three that a server may have, each alone.
  const std::vector<int> ports = {50051, 50052, 50053};
  for (size_t taken = 0; taken < ports.size(); ++taken) {
    std::vector<int> second_ports = {50071, 50072, 50073};
    second_ports[taken] = ports[taken];
    const std::string config = ::testing::TempDir() + "/second.textproto";
    ASSERT_TRUE(WriteFileAtomically(
                    config, absl::StrCat("listen { address: '", LoopbackAddress(1), "' port: ", second_ports[0],
                                         " }\nadmin { address: '", LoopbackAddress(1), "' port: ", second_ports[1],
                                         " http_port: ", second_ports[2], " }\nengine { threads: 1 bundle: '", bundle_,
                                         "' }\nlog { format: 'json' }\n"))
                    .ok());
    testing::Process second({BEAMLINE_BINARY, "serve", "--config", config});
    EXPECT_EQ(second.Wait(), 2);
    const json told = json::parse(second.Log(), nullptr, false);  // one object, and no line of text beside it
    ASSERT_TRUE(told.is_object()) << second.Log();
    EXPECT_EQ(told["event"], "server failed");
    EXPECT_THAT(told["error"].get<std::string>(),
                AllOf(HasSubstr(absl::StrCat("cannot listen on ", LoopbackAddress(1), ":", ports[taken])),
                      HasSubstr("another process listen")));
  }
  v1::RecommendResponse response;
  EXPECT_TRUE(Ask(*v1::RecommendService::NewStub(Connect(first->target())), FixedRequests()[1], &response).ok());
}

TEST_F(StartLogTest, WhoAsksBySignalGetsTheFlightRecorder) {
  const auto server = Started();
  const auto stub = v1::RecommendService::NewStub(Connect(server->target()));
  v1::RecommendRequest request = FixedRequests()[2];
  request.set_request_id("asked");
  v1::RecommendResponse response;
  ASSERT_TRUE(Ask(*stub, request, &response).ok());
  server->process().Signal(SIGUSR2);  // nothing
  server->process().Signal(SIGUSR1);
  const std::string line = server->process().AwaitLog("\"event\":\"flight record\"");
  const json record = json::parse(line, nullptr, false);
  ASSERT_TRUE(record.is_object()) << server->log();
  EXPECT_EQ(record["level"], "info");
  EXPECT_THAT(record["time"].get<std::string>(), ::testing::MatchesRegex("20..-..-..T..:..:..\\....Z"));
  EXPECT_EQ(record["request_id"], "asked");
  EXPECT_TRUE(Ask(*stub, request, &response).ok()) << "it goes on";
  EXPECT_EQ(server->Stop(SIGTERM), 0);
}

// Signals of the lower number are delivered first: none of them may keep the thread that hears of the stop.
TEST_F(StartLogTest, WhoAsksAgainAndAgainAndNeverReadsKeepsNobodyFromStopping) {
  const std::string pipe = absl::StrCat(::testing::TempDir(), "/stuck");
  std::filesystem::remove(pipe);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int ours = open(pipe.c_str(), O_RDWR);  // there is a reader, and he reads nothing
  RealServer server(LoopbackAddress(1), {.engine = absl::StrCat("bundle: '", bundle_, "'"),
                                         .lifecycle = "drain_delay_ms: 100 grace_ms: 1000",
                                         .more = "log { level: 'error' }"});
  server.StartBy({"/bin/sh", "-c", absl::StrCat("exec \"$@\" 2>", pipe), "sh"});
  ASSERT_TRUE(Says("/readyz", absl::Seconds(60)));
  const auto stub = v1::RecommendService::NewStub(Connect(server.target()));
  for (int i = 0; i < 300; ++i) {  // more records than a pipe holds
    v1::RecommendResponse response;
    ASSERT_TRUE(Ask(*stub, FixedRequests()[i % 5], &response).ok());
  }
  const pid_t pid = server.pid();
  std::atomic<bool> stopped{false};
  std::thread asking([&] {
    while (!stopped) {
      kill(pid, SIGUSR1);
      absl::SleepFor(absl::Milliseconds(50));
    }
  });
  absl::SleepFor(absl::Milliseconds(200));
  const absl::Time asked = absl::Now();
  EXPECT_EQ(server.Stop(SIGTERM), 0);
  EXPECT_LT(absl::Now() - asked, absl::Seconds(10));
  stopped = true;
  asking.join();
  close(ours);
}

TEST_F(StartLogTest, ACrashLeavesTheFlightRecorder) {
  const auto server = Started();
  const auto stub = v1::RecommendService::NewStub(Connect(server->target()));
  for (int i = 0; i < 5; ++i) {
    v1::RecommendRequest request = FixedRequests()[i];
    request.set_request_id(absl::StrCat("request-", i));
    v1::RecommendResponse response;
    ASSERT_TRUE(Ask(*stub, request, &response).ok());
  }
  httplib::Client client(LoopbackAddress(1), 50053);
  const httplib::Result page = client.Get("/debug/requests");
  ASSERT_TRUE(page);
  EXPECT_EQ(json::parse(page->body)["recent"].size(), 5u);
  EXPECT_EQ(server->Stop(SIGSEGV), -SIGSEGV);
  std::vector<std::string> ids;
  for (const json& line : Lines(server->log())) {
    if (line.value("event", "") != "flight record" || line["ring"] != "recent") continue;
    ids.push_back(line["request_id"]);
    EXPECT_EQ(line["step_us"].size(), 3u);
    EXPECT_EQ(line["code"], "OK");
  }
  EXPECT_THAT(ids, ElementsAre("request-0", "request-1", "request-2", "request-3", "request-4"));
}

}  // namespace
}  // namespace beamline::deploy
