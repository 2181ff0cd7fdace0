// SPDX-License-Identifier: Apache-2.0
//
// What idle, silent and foreign connections may hold, and for how long: raw sockets against a real server.
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "beamline/v1/admin.grpc.pb.h"
#include "deploy/raw_http2.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core_dumps.h"
#include "server/loopback.h"
#include "server/open_files.h"
#include "server/raw_connection.h"
#include "server/server_counters.h"

namespace beamline::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The client's preface and an empty SETTINGS frame: a connection that gRPC takes for whole.
const std::string kHello = std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\4\0\0\0\0\0", 9);

class ConnectionsTest : public LoopbackTest {
 protected:
  void SetUp() override {}
  void ExpectServes() {
    v1::RecommendResponse response;
    grpc::Status status = Recommend(ValidRequest(), &response);
    // The client's own connection may have been closed for idleness just as the call began.
    if (status.error_code() == grpc::StatusCode::UNAVAILABLE) status = Recommend(ValidRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
};

TEST_F(ConnectionsTest, StreamsAtATimeAreLimited) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_max_concurrent_streams(7);
  Start(config);
  constexpr uint16_t kMaxConcurrentStreams = 3;  // SETTINGS_MAX_CONCURRENT_STREAMS
  deploy::RawHttp2 connection("127.0.0.1", server_->port());
  connection.Send(deploy::Http2Hello());
  EXPECT_EQ(connection.AwaitSetting(kMaxConcurrentStreams), 7u);
}

TEST_F(ConnectionsTest, IdleOnesAreClosedAndOnlyByTheLimit) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_max_connection_idle_ms(0);
  Start(config);
  RawConnection kept(server_->port());
  kept.Send(kHello);
  EXPECT_FALSE(kept.ClosedWithin(absl::Milliseconds(700)));

  config.mutable_limits()->set_max_connection_idle_ms(200);
  Start(config);
  RawConnection closed(server_->port());
  closed.Send(kHello);
  EXPECT_TRUE(closed.ClosedWithin(absl::Seconds(10)));
  for (int i = 0; i < 3; ++i) {  // a client whose connection was closed in the meantime notices nothing
    ExpectServes();
    absl::SleepFor(absl::Milliseconds(300));
  }
}

TEST_F(ConnectionsTest, OldOnesGoAndTheirClientsComeBack) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_max_connection_idle_ms(0);
  config.mutable_limits()->set_max_connection_age_ms(200);
  config.mutable_lifecycle()->set_grace_ms(100);
  Start(config);
  RawConnection old(server_->port());
  old.Send(kHello);
  EXPECT_TRUE(old.ClosedWithin(absl::Seconds(10)));
  for (int i = 0; i < 20; ++i) {
    ExpectServes();
    absl::SleepFor(absl::Milliseconds(30));
  }
}

// Clients' keepalives, also between calls: gRPC's own default closes who pings more than every five minutes.
TEST_F(ConnectionsTest, PingsAreTakenAsOftenAsConfigured) {
  const std::string ping("\0\0\x8\x6\0\0\0\0\0ping8765", 17), answer("\0\0\x8\x6\1\0\0\0\0ping8765", 17);
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_min_client_ping_ms(10'000);
  Start(config);
  RawConnection refused(server_->port());
  refused.Send(kHello);
  for (int i = 0; i < 10; ++i) {  // as far apart as what is taken below
    refused.Send(ping);
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_TRUE(refused.Hears("too_many_pings", testing::kPatience));

  config.mutable_limits()->set_min_client_ping_ms(1);
  Start(config);
  RawConnection taken(server_->port());
  taken.Send(kHello);
  for (int i = 0; i < 10; ++i) {  // each when the last one was read, or a late server would read two at once
    taken.Send(ping);
    EXPECT_TRUE(taken.Hears(answer, testing::kPatience));
    absl::SleepFor(absl::Milliseconds(20));
  }
  EXPECT_FALSE(taken.ClosedWithin(absl::Milliseconds(500)));
}

TEST_F(ConnectionsTest, WhatDoesNotBecomeHttp2IsClosed) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_handshake_timeout_ms(300);
  Start(config);
  const std::string cases[] = {"",
                               "PRI * HT",
                               kHello.substr(0, 24),
                               "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                               std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11),
                               std::string(100, '\xff')};
  for (const std::string& bytes : cases) {
    RawConnection connection(server_->port());
    connection.Send(bytes);
    EXPECT_TRUE(connection.ClosedWithin(absl::Seconds(10))) << ::testing::PrintToString(bytes);
    ExpectServes();
  }
}

TEST_F(ConnectionsTest, ThoseBeyondTheLimitAreClosedAndMakeNoRoomForThemselves) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_max_connections(40);
  Start(config);
  ExpectServes();
  RawConnection early(server_->port());
  early.Send(kHello);
  EXPECT_FALSE(early.ClosedWithin(absl::Milliseconds(200)));
  std::vector<std::unique_ptr<RawConnection>> connections;
  for (int i = 0; i < 60; ++i) {
    connections.push_back(std::make_unique<RawConnection>(server_->port()));
    connections.back()->Send(kHello);
  }
  EXPECT_TRUE(Eventually([&] { return server_->counters().refused_connections.value() >= 20; }));
  EXPECT_THAT(server_->RenderMetrics(true),
              AllOf(HasSubstr("\nbeamline_grpc_connections 40\n"), HasSubstr("\nbeamline_grpc_max_connections 40\n"),
                    HasSubstr("\nbeamline_grpc_refused_connections_total ")));
  EXPECT_TRUE(connections.back()->ClosedWithin(absl::Seconds(10)));
  EXPECT_FALSE(early.ClosedWithin(absl::Milliseconds(100)));
  ExpectServes();  // on the connection from before
  connections.clear();
  EXPECT_TRUE(Eventually([&] {  // those two that are left, though nobody came meanwhile to look after the others
    return absl::StrContains(server_->RenderMetrics(true), "\nbeamline_grpc_connections 2\n");
  }));
  EXPECT_TRUE(Eventually([&] {
    RawConnection late(server_->port());
    late.Send(kHello);
    return !late.ClosedWithin(absl::Milliseconds(100));
  }));
}

TEST_F(ConnectionsTest, TheLimitThatIsToldIsTheOneThatHolds) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit low{1000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  Start(LoopbackConfig());  // limits.max_connections is 10000
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_THAT(server_->RenderMetrics(true), HasSubstr("\nbeamline_grpc_max_connections 600\n"));
}

// Reloads and rollbacks are wanted most while everything else is full.
TEST_F(ConnectionsTest, TheAdminListenerHasItsOwn) {
  config::v1::ServerConfig config = LoopbackConfig();
  config.mutable_limits()->set_max_connections(250);
  config.mutable_admin()->set_port(0);
  Start(config);
  std::vector<std::unique_ptr<RawConnection>> connections;
  for (int i = 0; i < 300; ++i) connections.push_back(std::make_unique<RawConnection>(server_->port()));
  EXPECT_TRUE(Eventually([&] { return server_->counters().refused_connections.value() >= 50; }));
  const auto admin = v1::AdminService::NewStub(Connect(server_->admin_address()));
  for (int i = 0; i < 2; ++i) {
    grpc::ClientContext context;
    v1::ReloadResponse response;
    const grpc::Status status = admin->Reload(&context, v1::ReloadRequest(), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
  }
  // And a limit: the public one's room is not the admin's.
  const std::string address = server_->admin_address();
  const int port = std::stoi(address.substr(address.rfind(':') + 1));
  for (int i = 0; i < 101; ++i) connections.push_back(std::make_unique<RawConnection>(port));
  EXPECT_TRUE(connections.back()->ClosedWithin(absl::Seconds(10)));
}

int Threads() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    absl::string_view rest = line;
    int threads = 0;
    if (absl::ConsumePrefix(&rest, "Threads:") && absl::SimpleAtoi(rest, &threads)) return threads;
  }
  return 0;
}

// gRPC answers reflection with a thread per stream. One connection may have a thousand streams.
TEST_F(ConnectionsTest, StreamsOfReflectionHoldFewThreads) {
  constexpr char kMethod[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
  const auto reflects = [&] {
    std::string answer;  // list_services is field 7 of ServerReflectionRequest
    return RawCall(channel_, kMethod, "\x3a\x01*", &answer).ok();
  };
  Start(LoopbackConfig());
  ASSERT_TRUE(reflects());
  const int before = Threads();
  {
    deploy::RawHttp2 client("127.0.0.1", server_->port());
    client.Send(deploy::Http2Hello());
    for (uint32_t i = 0; i < 500; ++i) {
      client.Send(deploy::Http2Frame(deploy::kHttp2Headers, deploy::kEndHeaders, 2 * i + 1,
                                     deploy::HpackLiterals(deploy::GrpcHeaders(kMethod))));
    }
    EXPECT_EQ(client.AwaitGrpcStatus(), grpc::StatusCode::RESOURCE_EXHAUSTED) << "the first one that is too many";
    EXPECT_LT(Threads() - before, 100);
    ExpectServes();
  }
  EXPECT_TRUE(Eventually(reflects)) << "once they are gone";
}

TEST(OpenFiles, TheSoftLimitIsRaisedAndTheHardOneChecked) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit low{64, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  EXPECT_TRUE(EnsureOpenFiles(65).ok());
  rlimit after{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &after), 0);
  EXPECT_EQ(after.rlim_cur, before.rlim_max);
  if (before.rlim_max != RLIM_INFINITY) {
    EXPECT_THAT(EnsureOpenFiles(static_cast<int64_t>(before.rlim_max) + 1).ToString(),
                AllOf(HasSubstr("FAILED_PRECONDITION"), HasSubstr("ulimit -Hn"), HasSubstr("limits.min_open_files")));
  }
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(CoreDumps, AreForbiddenToFilesAndCollectors) {
  const auto in_child = [] {
    if (prctl(PR_SET_DUMPABLE, 1) != 0) _exit(2);
    if (!ForbidCoreDumps().ok()) _exit(3);
    rlimit limit{1, 1};
    getrlimit(RLIMIT_CORE, &limit);
    _exit(prctl(PR_GET_DUMPABLE) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0 ? 0 : 1);
  };
  EXPECT_EXIT(in_child(), ::testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace beamline::server
