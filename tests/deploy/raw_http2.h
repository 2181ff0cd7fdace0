// SPDX-License-Identifier: Apache-2.0
//
// Just enough of HTTP/2 (RFC 9113) to say to a server what no gRPC client would: one connection, one call.
#pragma once

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"

namespace beamline::deploy {

using Headers = std::vector<std::pair<std::string, std::string>>;

inline constexpr uint8_t kHttp2Data = 0, kHttp2Headers = 1, kHttp2Priority = 2, kHttp2Reset = 3, kHttp2Settings = 4,
                         kHttp2Ping = 6, kHttp2GoAway = 7, kHttp2Window = 8, kHttp2Continuation = 9;
inline constexpr uint8_t kEndStream = 1, kEndHeaders = 4;

inline std::string BigEndian(uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes; i-- > 0;) text.push_back(static_cast<char>(value >> 8 * i));
  return text;
}

inline std::string Http2Frame(uint8_t type, uint8_t flags, uint32_t stream, const std::string& payload) {
  return BigEndian(payload.size(), 3) + static_cast<char>(type) + static_cast<char>(flags) + BigEndian(stream, 4) +
         payload;
}

// HPACK literals that no table remembers; names and values of up to 126 bytes.
inline std::string HpackLiterals(const Headers& headers) {
  std::string block;
  for (const auto& [name, value] : headers) {
    EXPECT_LT(name.size(), 127u);
    EXPECT_LT(value.size(), 127u);
    block += std::string(1, '\0') + static_cast<char>(name.size()) + name + static_cast<char>(value.size()) + value;
  }
  return block;
}

// A gRPC message behind its prefix, which may lie.
inline std::string GrpcMessage(const std::string& message, std::optional<uint32_t> length = std::nullopt,
                               char compressed = 0) {
  return compressed + BigEndian(length.value_or(static_cast<uint32_t>(message.size())), 4) + message;
}

// The headers of a correct call.
inline Headers GrpcHeaders(const std::string& method) {
  return {{":method", "POST"}, {":scheme", "http"},
          {":path", method},   {":authority", "x"},
          {"te", "trailers"},  {"content-type", "application/grpc"},
          {"user-agent", "t"}, {"grpc-accept-encoding", "identity"}};
}

// What such a call needs before it: preface and SETTINGS.
inline std::string Http2Hello() { return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Http2Frame(kHttp2Settings, 0, 0, ""); }

class RawHttp2 {
 public:
  // `from`: the address that the server sees; empty: whatever the kernel chooses.
  RawHttp2(const std::string& address, int port, const std::string& from = "")
      : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const auto endpoint = [](const std::string& host, int at) {
      sockaddr_in endpoint{};
      endpoint.sin_family = AF_INET;
      endpoint.sin_port = htons(static_cast<uint16_t>(at));
      EXPECT_EQ(inet_pton(AF_INET, host.c_str(), &endpoint.sin_addr), 1);
      return endpoint;
    };
    const sockaddr_in to = endpoint(address, port);
    if (!from.empty()) {
      const sockaddr_in own = endpoint(from, 0);
      EXPECT_EQ(bind(socket_, reinterpret_cast<const sockaddr*>(&own), sizeof(own)), 0);
    }
    EXPECT_EQ(connect(socket_, reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
    const timeval patience{5, 0};
    setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  }
  ~RawHttp2() { close(socket_); }
  RawHttp2(const RawHttp2&) = delete;
  RawHttp2& operator=(const RawHttp2&) = delete;

  // How many bytes went out before the server hung up, or took no more for five seconds.
  size_t Send(const std::string& bytes) {
    for (size_t done = 0; done < bytes.size();) {
      const ssize_t sent = send(socket_, bytes.data() + done, bytes.size() - done, MSG_NOSIGNAL);
      if (sent <= 0) return done;
      done += static_cast<size_t>(sent);
    }
    return bytes.size();
  }

  // The call's grpc-status; -1 where the connection was closed before one came, -2 after the time is over. The server
  // writes the header as a plain literal the first time a connection sees it.
  int AwaitGrpcStatus(absl::Duration time = absl::Seconds(10)) {
    const absl::Time end = absl::Now() + time;
    while (true) {
      const size_t at = received_.find(kName);
      if (at != std::string::npos && at + kName.size() < received_.size()) {
        const size_t length = static_cast<unsigned char>(received_[at + kName.size()]);
        int status = 0;
        if (absl::SimpleAtoi(received_.substr(at + kName.size() + 1, length), &status)) return status;
      }
      pollfd ready{socket_, POLLIN, 0};
      const absl::Duration left = end - absl::Now();
      if (left <= absl::ZeroDuration()) return -2;
      if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <= 0) continue;
      std::array<char, 4096> bytes;
      const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
      if (count <= 0) return -1;
      received_.append(bytes.data(), static_cast<size_t>(count));
    }
  }

  // Whether the server sends these bytes, plainly, within ten seconds and before it hangs up.
  bool Await(const std::string& text) {
    const absl::Time end = absl::Now() + absl::Seconds(10);
    while (received_.find(text) == std::string::npos) {
      pollfd ready{socket_, POLLIN, 0};
      const absl::Duration left = end - absl::Now();
      if (left <= absl::ZeroDuration()) return false;
      if (poll(&ready, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1) <= 0) continue;
      std::array<char, 4096> bytes;
      const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
      if (count <= 0) return false;
      received_.append(bytes.data(), static_cast<size_t>(count));
    }
    return true;
  }

  // A parameter of the first frame that the server sends, which is its SETTINGS.
  std::optional<uint32_t> AwaitSetting(uint16_t id) {
    std::array<char, 4096> bytes;
    while (received_.size() < 9 || received_.size() < 9 + Number(0, 3)) {
      const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
      if (count <= 0) return std::nullopt;
      received_.append(bytes.data(), static_cast<size_t>(count));
    }
    for (size_t at = 9; at + 6 <= 9 + Number(0, 3); at += 6) {
      if (Number(at, 2) == id) return Number(at + 2, 4);
    }
    return std::nullopt;
  }

  // Sends `first` and then zeros as DATA of a stream, as fast as the server's flow control lets it: until that many
  // bytes are sent, the server resets the stream or hangs up, or opens the window no further for a second.
  int64_t Flood(uint32_t stream, const std::string& first, int64_t bytes) {
    int64_t sent = 0, window = 65'535, stream_window = 65'535;
    std::string payload = first;
    while (sent < bytes) {
      while (sent < bytes && std::min(window, stream_window) > 0) {
        payload.resize(static_cast<size_t>(std::min<int64_t>({16'384, window, stream_window})), '\0');
        Send(Http2Frame(kHttp2Data, 0, stream, payload));
        for (int64_t* left : {&window, &stream_window}) *left -= static_cast<int64_t>(payload.size());
        sent += static_cast<int64_t>(payload.size());
        payload.clear();
      }
      if (!ReadWindows(stream, &window, &stream_window)) break;
    }
    return sent;
  }

 private:
  uint32_t Number(size_t at, int size) const {
    uint32_t value = 0;
    for (int i = 0; i < size; ++i) value = value << 8 | static_cast<unsigned char>(received_[at + i]);
    return value;
  }
  // Adds what the server's frames give; false when there is nothing more to hope for.
  bool ReadWindows(uint32_t stream, int64_t* window, int64_t* stream_window) {
    pollfd ready{socket_, POLLIN, 0};
    std::array<char, 4096> bytes;
    if (poll(&ready, 1, 1000) <= 0) return false;
    const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
    if (count <= 0) return false;
    received_.append(bytes.data(), static_cast<size_t>(count));
    while (received_.size() >= parsed_ + 9 && received_.size() >= parsed_ + 9 + Number(parsed_, 3)) {
      const size_t payload = parsed_ + 9;
      const uint32_t length = Number(parsed_, 3), id = Number(parsed_ + 5, 4);
      const auto type = static_cast<uint8_t>(received_[parsed_ + 3]);
      parsed_ = payload + length;
      if (type == kHttp2Reset || type == kHttp2GoAway) return false;
      if (type == kHttp2Window) *(id == 0 ? window : stream_window) += Number(payload, 4);
      for (size_t at = payload; type == kHttp2Settings && at + 6 <= parsed_; at += 6) {
        if (Number(at, 2) == 4) *stream_window += int64_t{Number(at + 2, 4)} - 65'535;  // SETTINGS_INITIAL_WINDOW_SIZE
      }
      if (type == kHttp2Headers && id == stream) return false;  // an answer, before the message is whole
    }
    return true;
  }

  inline static const std::string kName = "grpc-status";
  const int socket_;
  std::string received_;
  size_t parsed_ = 0;  // frames up to here
};

}  // namespace beamline::deploy
