// SPDX-License-Identifier: Apache-2.0
//
// A running server as a target of load: asynchronous calls over one channel, Recommend for one request and
// BatchRecommend for several; or, whatever the requests are, Check of the standard health service, which does nothing
// and so tells what gRPC itself costs. Thread-safe as loadgen/target.h says.
#pragma once

#include <memory>
#include <optional>
#include <string>
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
  };
  // As OpenChannel.
  static absl::StatusOr<std::unique_ptr<ServerTarget>> Create(const std::string& server, const TlsFlags& tls,
                                                              const Options& options);

  absl::Status Prepare(std::vector<RecommendRequest> pool) override;
  void Send(absl::Span<const int> indices, absl::Time deadline, bool want_items, Done done) override;
  std::optional<absl::Duration> CpuTime() const override;

 private:
  ServerTarget(const std::shared_ptr<grpc::Channel>& channel, const Options& options)
      : stub_(v1::RecommendService::NewStub(channel)), any_method_(channel), options_(options) {}
  void SendHealth(size_t requests, absl::Time deadline, Done done);
  void SendOne(int index, absl::Time deadline, bool want_items, Done done);

  const std::unique_ptr<v1::RecommendService::Stub> stub_;
  grpc::GenericStub any_method_;
  const Options options_;
  std::vector<v1::RecommendRequest> pool_;
};

// User and system time of all threads of a process of this machine. NOT_FOUND: there is none.
absl::StatusOr<absl::Duration> CpuTimeOf(int pid);

}  // namespace beamline::cli
