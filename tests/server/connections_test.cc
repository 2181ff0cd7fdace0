// SPDX-License-Identifier: Apache-2.0
//
// What idle, silent and foreign connections may hold, and for how long: raw sockets against a real server.
#include <array>
#include <string>

#include <netinet/in.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/core_dumps.h"
#include "server/loopback.h"
#include "server/open_files.h"

namespace beamline::server {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The client's preface and an empty SETTINGS frame: a connection that gRPC takes for whole.
const std::string kHello = std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n") + std::string("\0\0\0\4\0\0\0\0\0", 9);

class RawConnection {
 public:
  explicit RawConnection(int port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  }
  ~RawConnection() { close(socket_); }
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  void Send(const std::string& bytes) { send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }

  // Whether the server closes it within that time; what it says until then is thrown away.
  bool ClosedWithin(absl::Duration time) {
    const absl::Time end = absl::Now() + time;
    for (absl::Duration left = time; left > absl::ZeroDuration(); left = end - absl::Now()) {
      pollfd ready{socket_, POLLIN, 0};
      if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <= 0) continue;
      std::array<char, 4096> bytes;
      if (recv(socket_, bytes.data(), bytes.size(), 0) <= 0) return true;
    }
    return false;
  }

 private:
  int socket_;
};

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
