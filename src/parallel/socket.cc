// SPDX-License-Identifier: Apache-2.0
#include "parallel/socket.h"

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "beamline/status.h"

namespace beamline::parallel {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

absl::Status Gone() { return absl::UnavailableError("the connection was closed by the other side"); }

bool WouldBlock() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

absl::Status SocketError(const char* what) {
  if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) return Gone();
  return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(errno)));
}

// Waits for `events`; OK also when there is an error to be read.
absl::Status Await(int descriptor, short events, absl::Time deadline) {
  pollfd entry{descriptor, events, 0};
  for (;;) {
    const absl::Duration left = deadline - SteadyNow();
    if (left <= absl::ZeroDuration()) return absl::DeadlineExceededError("no answer in time");
    const int wait_ms = static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(left) + 1, 1000));
    if (poll(&entry, 1, wait_ms) < 0 && errno != EINTR) return SocketError("poll");
    if (entry.revents != 0) return absl::OkStatus();
  }
}

absl::StatusOr<AddressList> Resolve(const Endpoint& endpoint, bool passive) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  addrinfo* found = nullptr;
  const int error = getaddrinfo(endpoint.address.c_str(), std::to_string(endpoint.port).c_str(), &hints, &found);
  if (error != 0) {
    return absl::UnavailableError(
        absl::StrCat("the name '", endpoint.address, "' has no address: ", gai_strerror(error)));
  }
  return AddressList(found, &freeaddrinfo);
}

Socket NewSocket(const addrinfo& address) {
  return Socket(socket(address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, address.ai_protocol));
}

// Small messages must not wait for more.
void SendAtOnce(const Socket& socket) {
  const int on = 1;
  setsockopt(socket.descriptor(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

Endpoint Name(int (*ask)(int, sockaddr*, socklen_t*), const Socket& socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "0";
  if (ask(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &size) == 0) {
    getnameinfo(reinterpret_cast<sockaddr*>(&address), size, host, sizeof(host), port, sizeof(port),
                NI_NUMERICHOST | NI_NUMERICSERV);
  }
  int number = 0;
  (void)absl::SimpleAtoi(port, &number);
  return {host, number};
}

}  // namespace

absl::Time SteadyNow() { return ProcessClock().Now(); }

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Socket::~Socket() {
  if (open()) close(descriptor_);
}

absl::StatusOr<size_t> Socket::SendSome(absl::string_view bytes) {
  const ssize_t sent = send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  if (sent >= 0) return static_cast<size_t>(sent);
  if (WouldBlock()) return size_t{0};
  return SocketError("send");
}

absl::StatusOr<size_t> Socket::ReceiveSome(absl::Span<char> bytes) {
  const ssize_t received = recv(descriptor_, bytes.data(), bytes.size(), 0);
  if (received > 0) return static_cast<size_t>(received);
  if (received == 0) return Gone();
  if (WouldBlock()) return size_t{0};
  return SocketError("receive");
}

absl::Status Socket::SendAll(absl::string_view bytes, absl::Time deadline) {
  while (!bytes.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(const size_t sent, SendSome(bytes));
    bytes.remove_prefix(sent);
    if (sent == 0) BEAMLINE_RETURN_IF_ERROR(Await(descriptor_, POLLOUT, deadline));
  }
  return absl::OkStatus();
}

absl::Status Socket::ReceiveAll(absl::Span<char> bytes, absl::Time deadline) {
  while (!bytes.empty()) {
    BEAMLINE_ASSIGN_OR_RETURN(const size_t received, ReceiveSome(bytes));
    bytes.remove_prefix(received);
    if (received == 0) BEAMLINE_RETURN_IF_ERROR(Await(descriptor_, POLLIN, deadline));
  }
  return absl::OkStatus();
}

absl::Status Socket::SendMessage(absl::string_view message, absl::Time deadline) {
  const uint32_t size = static_cast<uint32_t>(message.size());
  std::string framed(reinterpret_cast<const char*>(&size), sizeof(size));
  absl::StrAppend(&framed, message);
  return SendAll(framed, deadline);
}

absl::StatusOr<std::string> Socket::ReceiveMessage(size_t max_bytes, absl::Time deadline) {
  uint32_t size = 0;
  BEAMLINE_RETURN_IF_ERROR(ReceiveAll({reinterpret_cast<char*>(&size), sizeof(size)}, deadline));
  if (size > max_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("a message of ", size, " bytes, at most ", max_bytes));
  }
  std::string message(size, '\0');
  BEAMLINE_RETURN_IF_ERROR(ReceiveAll(absl::MakeSpan(message), deadline));
  return message;
}

void Socket::Shutdown() {
  if (open()) shutdown(descriptor_, SHUT_RDWR);
}

void Socket::EndSending() {
  if (open()) shutdown(descriptor_, SHUT_WR);
}

absl::StatusOr<Socket> Listen(const Endpoint& endpoint, absl::string_view field) {
  const auto refuse = [&](absl::string_view why) {
    return absl::UnavailableError(
        absl::StrCat(field, ": cannot listen on ", endpoint.address, " port ", endpoint.port, ": ", why));
  };
  absl::StatusOr<AddressList> addresses = Resolve(endpoint, /*passive=*/true);
  if (!addresses.ok()) return refuse(addresses.status().message());
  const addrinfo& first = **addresses;
  Socket socket = NewSocket(first);
  const int on = 1;
  if (socket.open()) setsockopt(socket.descriptor(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (!socket.open() || bind(socket.descriptor(), first.ai_addr, first.ai_addrlen) != 0 ||
      listen(socket.descriptor(), SOMAXCONN) != 0) {
    return refuse(errno == EADDRINUSE ? "it is in use, perhaps by another group; choose a free port"
                                      : std::strerror(errno));
  }
  return socket;
}

absl::StatusOr<Socket> AcceptSome(Socket& listener) {
  Socket accepted(accept4(listener.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (accepted.open()) {
    SendAtOnce(accepted);
  } else if (!WouldBlock() && errno != ECONNABORTED) {
    return SocketError("accept");
  }
  return accepted;
}

bool HasNews(const Socket& socket) {
  pollfd entry{socket.descriptor(), POLLIN | POLLRDHUP, 0};
  return poll(&entry, 1, 0) > 0;
}

void NoticeLoss(Socket& socket, absl::Duration after) {
  const auto set = [&](int level, int option, int value) {
    setsockopt(socket.descriptor(), level, option, &value, sizeof(value));
  };
  // After a second of silence, one probe a second.
  set(IPPROTO_TCP, TCP_KEEPIDLE, 1);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 1);
  set(IPPROTO_TCP, TCP_KEEPCNT, static_cast<int>(std::max<int64_t>(absl::ToInt64Seconds(after) - 1, 1)));
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
}

absl::Time LastAcknowledged(const Socket& socket) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(socket.descriptor(), IPPROTO_TCP, TCP_INFO, &info, &size) != 0 || info.tcpi_unacked == 0) {
    return absl::InfiniteFuture();
  }
  return SteadyNow() - absl::Milliseconds(info.tcpi_last_ack_recv);
}

absl::StatusOr<Socket> Connect(const Endpoint& endpoint, absl::Time deadline) {
  BEAMLINE_ASSIGN_OR_RETURN(const AddressList addresses, Resolve(endpoint, /*passive=*/false));
  Socket socket = NewSocket(*addresses);
  if (!socket.open()) return SocketError("socket");
  if (connect(socket.descriptor(), addresses->ai_addr, addresses->ai_addrlen) != 0) {
    if (errno != EINPROGRESS) return SocketError("connect");
    BEAMLINE_RETURN_IF_ERROR(Await(socket.descriptor(), POLLOUT, deadline));
    socklen_t size = sizeof(errno);
    int error = 0;
    getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return absl::UnavailableError(std::strerror(error));
  }
  SendAtOnce(socket);
  return socket;
}

Endpoint LocalEndpoint(const Socket& socket) { return Name(&getsockname, socket); }
Endpoint PeerEndpoint(const Socket& socket) { return Name(&getpeername, socket); }

}  // namespace beamline::parallel
