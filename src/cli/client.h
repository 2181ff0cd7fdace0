// SPDX-License-Identifier: Apache-2.0
//
// A small blocking client of beamline.v1: one channel, plaintext or TLS, a deadline on every call (gRPC's own
// service-config timeout is a second short), errors with the target in front and a hint behind. Ctrl-C
// (base/interrupt.h) ends a call that waits, with CANCELLED. Not thread-safe.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "beamline/request.h"
#include "beamline/types.h"
#include "beamline/v1/admin.grpc.pb.h"
#include "beamline/v1/catalogue.grpc.pb.h"
#include "beamline/v1/model.grpc.pb.h"
#include "beamline/v1/recommend.grpc.pb.h"
#include "cli/command.h"
#include "grpcpp/channel.h"

namespace beamline::cli {

// Files in PEM. All empty: plaintext.
struct TlsFlags {
  std::string ca;                // whom to believe; required for TLS
  std::string certificate, key;  // who we are, for a server that asks
};
void AddTlsFlags(Command* command, TlsFlags* flags);

// INVALID_ARGUMENT, NOT_FOUND, ...: the flag and the file that is wrong. Connects with the first call. `flag` names
// what gave the target.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(absl::string_view flag, const std::string& target,
                                                           const TlsFlags& tls);
// The behaviour of a user in a request.
void FillUser(const std::vector<Event>& history, const std::vector<UserAttribute>& attributes,
              v1::RecommendRequest* request);

class Client {
 public:
  // INVALID_ARGUMENT, NOT_FOUND, ...: the flag and the file that is wrong. Connects with the first call.
  static absl::StatusOr<Client> Create(const std::string& target, absl::Duration timeout, const TlsFlags& tls = {});

  absl::StatusOr<v1::RecommendResponse> Recommend(const v1::RecommendRequest& request);
  absl::StatusOr<v1::GetStatusResponse> GetStatus();
  // Of the admin listener alone; what serves then.
  absl::StatusOr<v1::ModelVersion> Reload(const std::string& bundle);
  absl::StatusOr<v1::ModelVersion> Rollback();
  // Absent when the catalogue does not have it.
  absl::StatusOr<std::optional<v1::Item>> GetItem(ItemId item);

 private:
  Client(const std::string& target, absl::Duration timeout, const std::shared_ptr<grpc::Channel>& channel);
  template <typename Service, typename Request, typename Response>
  using Method = void (Service::*)(grpc::ClientContext*, const Request*, Response*, std::function<void(grpc::Status)>);
  template <typename Service, typename Request, typename Response>
  absl::StatusOr<Response> Ask(Service* service, Method<Service, Request, Response> method, const Request& request);
  absl::Status Explain(const grpc::Status& status, bool admin) const;

  std::string target_;
  absl::Duration timeout_;
  std::unique_ptr<v1::RecommendService::Stub> recommend_;
  std::unique_ptr<v1::CatalogueService::Stub> catalogue_;
  std::unique_ptr<v1::ModelService::Stub> model_;
  std::unique_ptr<v1::AdminService::Stub> admin_;
};

}  // namespace beamline::cli
