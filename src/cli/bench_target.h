// SPDX-License-Identifier: Apache-2.0
//
// A running server as a target of load: asynchronous calls over connections of their own, a new set for every Prepare,
// a connection for each hundred calls that will be open at once: a server admits so many streams of one connection, and
// what waits for its turn here would be told as the server's time. Recommend for one request and BatchRecommend for
// several; or, whatever the requests are, Check of the standard health service, which does nothing
// and so tells what gRPC itself costs. Thread-safe as loadgen/target.h says.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "beamline/v1/recommend.grpc.pb.h"
#include "cli/client.h"
#include "grpcpp/generic/generic_stub.h"
#include "loadgen/target.h"

namespace beamline::cli {

class ServerTarget final : public loadgen::Target {
 public:
  struct Options {
    int pid = 0;  // of the server's process on this machine, whose CPU time is then measured; 0: it is not
    bool health = false;
    absl::Duration patience = absl::Seconds(10);          // until a first connection
    absl::Duration patience_for_more = absl::Seconds(3);  // after each: gRPC tries again after 1.2 s at most
  };
  // As OpenChannel.
  static absl::StatusOr<std::unique_ptr<ServerTarget>> Create(const std::string& server, const TlsFlags& tls,
                                                              const Options& options);

  // UNAVAILABLE: no connection in time.
  absl::Status Prepare(std::vector<RecommendRequest> pool, int64_t open_calls) override;
  void Send(absl::Span<const int> indices, absl::Time deadline, bool want_items, Done done) override;
  std::optional<absl::Duration> CpuTime() const override;
  int64_t connections() const override { return static_cast<int64_t>(connections_.size()); }

 private:
  struct Connection {
    explicit Connection(const std::shared_ptr<grpc::Channel>& channel)
        : stub(v1::RecommendService::NewStub(channel)), any_method(channel) {}
    std::unique_ptr<v1::RecommendService::Stub> stub;
    grpc::GenericStub any_method;
  };
  ServerTarget(std::string server, TlsFlags tls, const Options& options)
      : server_(std::move(server)), tls_(std::move(tls)), options_(options) {}
  Connection& Next() { return *connections_[next_++ % connections_.size()]; }
  void SendHealth(size_t requests, absl::Time deadline, Done done);
  void SendOne(int index, absl::Time deadline, bool want_items, Done done);

  const std::string server_;
  const TlsFlags tls_;
  const Options options_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::atomic<size_t> next_ = 0;
  std::vector<v1::RecommendRequest> pool_;
};

// User and system time of all threads of a process of this machine. NOT_FOUND: there is none.
absl::StatusOr<absl::Duration> CpuTimeOf(int pid);

}  // namespace beamline::cli
