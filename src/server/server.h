// SPDX-License-Identifier: Apache-2.0
//
// The gRPC server: the public services of beamline.v1 on one listener, with the standard health service and reflection
// where configured, and AdminService on a listener of its own where the configuration has one. It owns gRPC's threads
// and borrows the engine and the clock, which outlive it. ClaimPorts refuses a port that another process has, before
// there is an engine. Stopping is three steps, driven by lifecycle.h: SetServing(false), Refuse(), Shutdown(...).
// Thread-safe.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "beamline/config/v1/server_config.pb.h"
#include "beamline/engine.h"

namespace grpc {
class Server;
class Service;
}  // namespace grpc

namespace beamline::server {

struct RequestLimits;
struct ServiceContext;
struct ServerCounters;
class FlightRecorder;
class Listener;
struct Listeners;
class TlsCredentials;

class Server {
 public:
  // `config` has passed LoadServerConfig. Nobody can connect yet. Port 0: the system chooses, see address().
  // FAILED_PRECONDITION: an address cannot be listened on; the message names it, the reason and what to do.
  static absl::StatusOr<Listeners> ClaimPorts(const config::v1::ServerConfig& config);
  // With what ClaimPorts(config) gave. Health says NOT_SERVING. INVALID_ARGUMENT: the files of config.tls.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const config::v1::ServerConfig& config, Listeners listeners,
                                                       Engine* engine, const Clock* clock);
  ~Server();  // Shutdown, cancelling what is still in flight

  const std::string& address() const { return address_; }  // "127.0.0.1:50051", with the real port
  int port() const { return port_; }
  const std::string& admin_address() const { return admin_address_; }  // empty: there is none
  const ServerCounters& counters() const;
  const FlightRecorder& recorder() const;
  // For a request that comes now.
  RequestLimits request_limits() const;
  // See metrics.h.
  std::string RenderMetrics(bool ready) const;

  // What health says, of every service and of "". Cheap when nothing changes.
  void SetServing(bool serving);
  // Health says NOT_SERVING and GetStatus not ready from now on, so that callers go elsewhere; calls are still
  // answered.
  void Leave();
  // New calls are answered UNAVAILABLE from now on.
  void Refuse();
  // Calls in flight, health's Watch streams not counted.
  int64_t in_flight() const;
  // Closes the listeners and all connections; calls in flight are cancelled. Returns when the last has ended.
  // Calls that gRPC has begun get `late_calls` to end; the others are cancelled.
  void Shutdown(absl::Duration late_calls = absl::ZeroDuration());

 private:
  explicit Server(std::unique_ptr<ServiceContext> context);
  absl::Status StartPublic(const config::v1::ServerConfig& config);
  absl::Status StartAdmin(const config::v1::ServerConfig& config);

  std::unique_ptr<ServiceContext> context_;
  std::unique_ptr<TlsCredentials> tls_;  // null: plaintext
  std::vector<std::unique_ptr<grpc::Service>> services_, admin_services_;
  std::unique_ptr<grpc::Server> server_, admin_server_;
  std::unique_ptr<Listener> listener_, admin_listener_;
  std::string address_, admin_address_;
  std::atomic<int> serving_{-1};  // what health says; -1: nothing yet
  int port_ = 0;
};

// "127.0.0.1:80", "[::1]:80".
std::string HostPort(const std::string& address, int port);

}  // namespace beamline::server
