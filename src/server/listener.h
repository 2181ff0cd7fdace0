// SPDX-License-Identifier: Apache-2.0
//
// A listening socket of ours whose connections gRPC serves. gRPC's own (1.51, CVE-2023-4785) never accepts again once
// accepting has failed for want of open files, while everything else lives on; it takes whatever number comes; and it
// does not say why it cannot bind. This one closes connections beyond its limit as they come, and goes on. Its port is
// its own long before anybody can connect: a process that cannot have its port hears so before it loads anything. For
// one thread, besides its own.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/metrics.h"
#include "grpcpp/server_builder.h"

namespace beamline::server {

// What was handed to gRPC and is still open. gRPC tells nobody when it closes a connection, but its descriptor then is
// nobody's or another file's. Thread-safe.
class OpenConnections {
 public:
  // Counts `connection`; false: there are `limit` already. A call looks after at most some hundred of them, so where
  // all have gone at once it may take a few.
  bool Add(int connection, size_t limit);
  // Looks after every one, so not for every call. Nobody who connects waits for it.
  size_t Count() const;

 private:
  struct Connection {
    int descriptor;
    uint64_t inode;
  };
  static bool IsOpen(const Connection& connection);
  static uint64_t InodeOf(int descriptor);  // 0: none
  mutable std::mutex mu_;
  std::vector<Connection> connections_;  // guarded by mu_, as the one below
  size_t next_ = 0;                      // to look after
};

class Listener {
 public:
  static constexpr int kReservedFiles = 400;  // models, the log, the admin ports with all their connections

  struct Options {
    std::string address;      // as in the configuration: figures, or localhost
    int port = 0;             // 0: the system chooses
    int max_connections = 0;  // of this listener at once
    // Nor so many, of whichever listener, that fewer of the open files allowed were left for everything else.
    // Descriptors are given out from the lowest, so the next one's number tells.
    int reserved_files = kReservedFiles;
    absl::Duration dead_after;  // unacknowledged data on a connection (TCP_USER_TIMEOUT)
  };

  // The port belongs to us alone from now on; who connects is refused, as if nobody were there. FAILED_PRECONDITION: it
  // cannot be had; the message names it, the reason and what to do.
  static absl::StatusOr<std::unique_ptr<Listener>> Claim(const Options& options);
  ~Listener();  // Stop
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  int port() const { return port_; }
  // Hands what connects to a running server. `refused` counts what was one too many. Once. Errors are as Claim's.
  absl::Status Start(std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor, Counter* refused);
  // Open now, and how many may be: where the open files allow fewer than max_connections, so many, less what else has
  // some. Once it has started.
  int64_t connections() const { return static_cast<int64_t>(open_.Count()); }
  int64_t max_connections() const { return std::min(options_.max_connections, first_reserved_); }
  // Accepts nothing more and closes the socket. Before the server's Shutdown.
  void Stop();

 private:
  Listener(const Options& options, int socket, int wake, int port);
  void Loop();
  void Accept();

  const Options options_;
  int socket_;
  const int wake_;  // an eventfd: written to by Stop
  const int port_;
  int first_reserved_ = 0;  // the first descriptor that is one too many
  OpenConnections open_;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  Counter* refused_ = nullptr;
  std::thread thread_;
};

// What a server listens on; `admin` is null where it has none.
struct Listeners {
  std::unique_ptr<Listener> calls, admin;
};

}  // namespace beamline::server
