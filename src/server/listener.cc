// SPDX-License-Identifier: Apache-2.0
#include "server/listener.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "server/server.h"

namespace beamline::server {
namespace {

constexpr int kPauseMs = 50;  // after accepting has failed

union SocketAddress {
  sockaddr any;
  sockaddr_in v4;
  sockaddr_in6 v6;
};

// False: not an address.
bool ParseAddress(const std::string& text, int port, SocketAddress* address) {
  *address = {};
  const auto in_network_order = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, text == "localhost" ? "127.0.0.1" : text.c_str(), &address->v4.sin_addr) == 1) {
    address->v4.sin_family = AF_INET;
    address->v4.sin_port = in_network_order;
    return true;
  }
  if (inet_pton(AF_INET6, text.c_str(), &address->v6.sin6_addr) != 1) return false;
  address->v6.sin6_family = AF_INET6;
  address->v6.sin6_port = in_network_order;
  return true;
}

void SetOption(int socket, int level, int name, int value) { setsockopt(socket, level, name, &value, sizeof(value)); }

// Accepted sockets inherit what is set here.
void SetOptions(int socket, int family, absl::Duration dead_after) {
  if (family == AF_INET6) SetOption(socket, IPPROTO_IPV6, IPV6_V6ONLY, 0);  // :: is every address of either kind
  SetOption(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  SetOption(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, static_cast<int>(absl::ToInt64Milliseconds(dead_after)));
}

// SO_REUSEADDR is what makes a port free whose last owner has just ended, but two sockets that both have it may share a
// port until one listens. So it is asked for only where the port is not free without, and never kept while we wait.
bool Bind(int socket, const SocketAddress& address, socklen_t size) {
  bool bound = bind(socket, &address.any, size) == 0;
  if (!bound && errno == EADDRINUSE) {
    SetOption(socket, SOL_SOCKET, SO_REUSEADDR, 1);
    bound = bind(socket, &address.any, size) == 0;
    const int error = errno;
    SetOption(socket, SOL_SOCKET, SO_REUSEADDR, 0);
    errno = error;
  }
  return bound;
}

absl::Status CannotListenOn(const std::string& address, int port, absl::string_view why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", HostPort(address, port), ": ", why));
}

const char* Reason(int error) {
  return error == EADDRINUSE ? "another process listens there; stop it or choose another port" : std::strerror(error);
}

// The limit of open files less what else needs them; of a tiny limit at most half.
int FirstReserved(int reserved) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur > 1 << 30) return 1 << 30;
  const int all = static_cast<int>(limit.rlim_cur);
  const int most = std::min(Listener::kReservedFiles, all / 2);
  return all - most * reserved / Listener::kReservedFiles;
}

}  // namespace

uint64_t OpenConnections::InodeOf(int descriptor) {
  struct stat file {};
  return fstat(descriptor, &file) == 0 && S_ISSOCK(file.st_mode) ? file.st_ino : 0;
}

bool OpenConnections::IsOpen(const Connection& connection) {
  return InodeOf(connection.descriptor) == connection.inode;
}

size_t OpenConnections::Count() const {
  std::vector<Connection> connections;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    connections = connections_;
  }
  return static_cast<size_t>(std::count_if(connections.begin(), connections.end(), IsOpen));
}

bool OpenConnections::Add(int connection, size_t limit) {
  constexpr int kLooks = 256;
  const std::lock_guard<std::mutex> lock(mu_);
  for (int i = 0; i < kLooks && connections_.size() >= limit; ++i) {
    if (next_ >= connections_.size()) next_ = 0;
    if (IsOpen(connections_[next_])) {
      ++next_;
      continue;
    }
    connections_[next_] = connections_.back();
    connections_.pop_back();
  }
  if (connections_.size() >= limit) return false;
  connections_.push_back({connection, InodeOf(connection)});
  return true;
}

absl::StatusOr<std::unique_ptr<Listener>> Listener::Claim(const Options& options) {
  int socket = -1, wake = -1;
  const auto refuse = [&](absl::string_view why) {
    if (socket >= 0) close(socket);
    if (wake >= 0) close(wake);
    return CannotListenOn(options.address, options.port, why);
  };
  SocketAddress address;
  if (!ParseAddress(options.address, options.port, &address)) return refuse("not an address of this machine");
  const int family = address.any.sa_family;
  socket = ::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  wake = eventfd(0, EFD_CLOEXEC);
  if (socket < 0 || wake < 0) return refuse(std::strerror(errno));
  SetOptions(socket, family, options.dead_after);
  socklen_t size = family == AF_INET ? sizeof(address.v4) : sizeof(address.v6);
  if (!Bind(socket, address, size)) return refuse(Reason(errno));
  if (getsockname(socket, &address.any, &size) != 0) return refuse(std::strerror(errno));
  const int port = ntohs(family == AF_INET ? address.v4.sin_port : address.v6.sin6_port);
  return std::unique_ptr<Listener>(new Listener(options, socket, wake, port));
}

Listener::Listener(const Options& options, int socket, int wake, int port)
    : options_(options), socket_(socket), wake_(wake), port_(port) {}

Listener::~Listener() {
  Stop();
  close(wake_);
}

absl::Status Listener::Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor,
                             Counter* refused) {
  acceptor_ = std::move(acceptor);
  refused_ = refused;
  first_reserved_ = FirstReserved(options_.reserved_files);
  SetOption(socket_, SOL_SOCKET, SO_REUSEADDR, 1);  // inherited: the next owner need not wait for our connections' end
  if (listen(socket_, SOMAXCONN) != 0) return CannotListenOn(options_.address, port_, Reason(errno));
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

void Listener::Stop() {
  if (socket_ < 0) return;
  eventfd_write(wake_, 1);
  if (thread_.joinable()) thread_.join();
  close(std::exchange(socket_, -1));
}

void Listener::Loop() {
  while (true) {
    pollfd events[] = {{wake_, POLLIN, 0}, {socket_, POLLIN, 0}};
    if (poll(events, 2, -1) < 0) continue;
    if (events[0].revents != 0) return;
    Accept();
  }
}

void Listener::Accept() {
  const int connection = accept4(socket_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (connection < 0) {
    if (errno == EINTR || errno == EAGAIN || errno == ECONNABORTED) return;
    LogEvent(spdlog::level::err, "accepting connections fails", {{"error", std::strerror(errno)}});
    pollfd stop{wake_, POLLIN, 0};
    poll(&stop, 1, kPauseMs);
    return;
  }
  if (connection >= first_reserved_ || !open_.Add(connection, static_cast<size_t>(options_.max_connections))) {
    close(connection);
    refused_->Add();
    LogEvent(spdlog::level::warn, "connection refused: there are too many",
             {{"port", port_}, {"max_connections", options_.max_connections}});
    return;
  }
  grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
  parameters.listener_fd = socket_;
  parameters.fd = connection;
  acceptor_->HandleNewConnection(&parameters);
}

}  // namespace beamline::server
