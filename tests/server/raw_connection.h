// SPDX-License-Identifier: Apache-2.0
//
// A connection to a port of this machine that says whatever a test wants.
#pragma once

#include <array>
#include <string>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace beamline::server {

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

  // False: the server has closed it.
  bool Send(const std::string& bytes) const {
    return send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }

  // Whether the server says `text` within that time; what it says before is dropped.
  bool Hears(const std::string& text, absl::Duration time) const {
    std::string heard;
    for (const absl::Time end = absl::Now() + time; absl::Now() < end;) {
      pollfd ready{socket_, POLLIN, 0};
      if (poll(&ready, 1, 10) <= 0) continue;
      char byte;
      if (recv(socket_, &byte, 1, 0) <= 0) return false;
      heard += byte;
      if (heard.size() >= text.size() && heard.compare(heard.size() - text.size(), text.size(), text) == 0) return true;
    }
    return false;
  }

  // Whether the server closes it within that time; `heard`: gets what it says until then.
  bool ClosedWithin(absl::Duration time, std::string* heard = nullptr) {
    const absl::Time end = absl::Now() + time;
    for (absl::Duration left = time; left > absl::ZeroDuration(); left = end - absl::Now()) {
      pollfd ready{socket_, POLLIN, 0};
      if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <= 0) continue;
      std::array<char, 4096> bytes;
      const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
      if (count <= 0) return true;
      if (heard != nullptr) heard->append(bytes.data(), static_cast<size_t>(count));
    }
    return false;
  }

 private:
  int socket_;
};

}  // namespace beamline::server
