// SPDX-License-Identifier: Apache-2.0
#include "cli/client.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "beamline/status.h"
#include "grpcpp/grpcpp.h"
#include "server/grpc_status.h"

namespace beamline::cli {
namespace {

constexpr absl::Duration kInterruptPoll = absl::Milliseconds(50);

std::string Hint(absl::StatusCode code, bool admin) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
      if (admin) return "is `beamline serve` running there, and is this its admin port?";
      return "is `beamline serve` running there? With TLS: is --tls-ca given, and did it sign a certificate of this "
             "name; does the server ask for --tls-cert?";
    case absl::StatusCode::kDeadlineExceeded:
      return "give more time with --timeout-ms";
    case absl::StatusCode::kUnimplemented:
      if (admin) return "is this the server's admin listener (admin.port), not the one that answers requests?";
      return "is this a Beamline server, and the port that answers requests (listen.port), not its admin listener?";
    default:
      return "";
  }
}

absl::Status ReadFlag(absl::string_view flag, const std::string& path, std::string* out) {
  if (path.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> bytes = ReadFile(path, 1 << 20);
  if (!bytes.ok()) return absl::Status(bytes.status().code(), absl::StrCat(flag, ": ", bytes.status().message()));
  *out = *std::move(bytes);
  if (absl::StrContains(*out, "-----BEGIN ")) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(flag, ": ", path, " is not in PEM (-----BEGIN ...-----)"));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> CredentialsOf(const TlsFlags& tls) {
  if (tls.ca.empty()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions options;
  BEAMLINE_RETURN_IF_ERROR(ReadFlag("--tls-ca", tls.ca, &options.pem_root_certs));
  BEAMLINE_RETURN_IF_ERROR(ReadFlag("--tls-cert", tls.certificate, &options.pem_cert_chain));
  BEAMLINE_RETURN_IF_ERROR(ReadFlag("--tls-key", tls.key, &options.pem_private_key));
  return grpc::SslCredentials(options);
}

// gRPC takes port 99999 for 34463, and an empty target for a reason to log.
absl::Status CheckTarget(absl::string_view flag, absl::string_view target) {
  if (absl::StartsWith(target, "unix:")) return absl::OkStatus();
  const size_t colon = target.rfind(':');
  int port = 0;
  if (colon != absl::string_view::npos && colon > 0 && absl::SimpleAtoi(target.substr(colon + 1), &port) && port >= 1 &&
      port <= 65535) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(flag, ": '", target, "' must be HOST:PORT with a port of 1..65535, such as 127.0.0.1:50051"));
}

}  // namespace

void AddTlsFlags(Command* command, TlsFlags* flags) {
  const char* const group = "TLS";
  Option* ca = command->AddText("--tls-ca", flags->ca, "Speak TLS, and believe what these authorities signed")
                   ->TypeName("FILE")
                   ->Group(group);
  Option* certificate = command->AddText("--tls-cert", flags->certificate, "This client's certificate, for mutual TLS")
                            ->TypeName("FILE")
                            ->Group(group);
  Option* key = command->AddText("--tls-key", flags->key, "Its private key")->TypeName("FILE")->Group(group);
  certificate->Needs(ca)->Needs(key);
  key->Needs(certificate);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(absl::string_view flag, const std::string& target,
                                                           const TlsFlags& tls) {
  BEAMLINE_RETURN_IF_ERROR(CheckTarget(flag, target));
  BEAMLINE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::ChannelCredentials> credentials, CredentialsOf(tls));
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);          // the target is meant literally
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // a channel is a connection of its own
  return grpc::CreateCustomChannel(target, credentials, arguments);
}

void FillUser(const std::vector<Event>& history, const std::vector<UserAttribute>& attributes,
              v1::RecommendRequest* request) {
  for (const UserAttribute& attribute : attributes) {
    v1::UserAttribute& out = *request->add_user_attributes();
    out.set_name(attribute.name);
    out.set_value(attribute.value);
  }
  for (const Event& event : history) {
    v1::Event& out = *request->add_history();
    out.set_item_id(event.item);
    out.set_timestamp_ms(event.timestamp_ms);
    out.set_play_time_ms(event.play_time_ms);
    out.set_duration_ms(event.duration_ms);
    for (int bit = 0; bit < kNumLabels; ++bit) {
      if (event.labels & (1u << bit)) out.add_labels(static_cast<v1::Label>(bit + 1));
    }
  }
}

absl::StatusOr<Client> Client::Create(const std::string& target, absl::Duration timeout, const TlsFlags& tls) {
  BEAMLINE_ASSIGN_OR_RETURN(const std::shared_ptr<grpc::Channel> channel, OpenChannel("--target", target, tls));
  return Client(target, timeout, channel);
}

Client::Client(const std::string& target, absl::Duration timeout, const std::shared_ptr<grpc::Channel>& channel)
    : target_(target), timeout_(timeout) {
  recommend_ = v1::RecommendService::NewStub(channel);
  catalogue_ = v1::CatalogueService::NewStub(channel);
  model_ = v1::ModelService::NewStub(channel);
  admin_ = v1::AdminService::NewStub(channel);
}

absl::Status Client::Explain(const grpc::Status& grpc_status, bool admin) const {
  if (grpc_status.ok()) return absl::OkStatus();
  const absl::Status status = server::FromGrpcStatus(grpc_status);
  // Our server's own refusals have details; the network's have none.
  const bool reached = absl::IsUnavailable(status) && !grpc_status.error_details().empty();
  const std::string hint = reached ? "" : Hint(status.code(), admin);
  return absl::Status(status.code(), absl::StrCat(target_, ": ", absl::StatusCodeToString(status.code()),
                                                  status.message().empty() ? "" : ": ", status.message(),
                                                  hint.empty() ? "" : "; ", hint));
}

template <typename Service, typename Request, typename Response>
absl::StatusOr<Response> Client::Ask(Service* service, Method<Service, Request, Response> method,
                                     const Request& request) {
  grpc::ClientContext context;  // of this call alone: it is used once
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout_));
  Response response;
  grpc::Status status;
  absl::Notification done;
  (service->*method)(&context, &request, &response, [&](grpc::Status result) {
    status = std::move(result);
    done.Notify();
  });
  while (!done.WaitForNotificationWithTimeout(kInterruptPoll)) {
    if (Interrupted()) context.TryCancel();  // ends the call, so `done` comes
  }
  if (!status.ok() && Interrupted()) {
    return absl::CancelledError(absl::StrCat("interrupted while waiting for ", target_));
  }
  BEAMLINE_RETURN_IF_ERROR(Explain(status, std::is_same_v<Service, std::remove_pointer_t<decltype(admin_->async())>>));
  return response;
}

absl::StatusOr<v1::RecommendResponse> Client::Recommend(const v1::RecommendRequest& request) {
  return Ask(recommend_->async(), &v1::RecommendService::Stub::async::Recommend, request);
}

absl::StatusOr<v1::GetStatusResponse> Client::GetStatus() {
  return Ask(model_->async(), &v1::ModelService::Stub::async::GetStatus, v1::GetStatusRequest());
}

absl::StatusOr<v1::ModelVersion> Client::Reload(const std::string& bundle) {
  v1::ReloadRequest request;
  request.set_bundle(bundle);
  BEAMLINE_ASSIGN_OR_RETURN(const v1::ReloadResponse response,
                            Ask(admin_->async(), &v1::AdminService::Stub::async::Reload, request));
  return response.serving();
}

absl::StatusOr<v1::ModelVersion> Client::Rollback() {
  BEAMLINE_ASSIGN_OR_RETURN(const v1::RollbackResponse response,
                            Ask(admin_->async(), &v1::AdminService::Stub::async::Rollback, v1::RollbackRequest()));
  return response.serving();
}

absl::StatusOr<std::optional<v1::Item>> Client::GetItem(ItemId item) {
  v1::GetItemRequest request;
  request.set_item_id(item);
  const absl::StatusOr<v1::GetItemResponse> response =
      Ask(catalogue_->async(), &v1::CatalogueService::Stub::async::GetItem, request);
  if (absl::IsNotFound(response.status())) return std::nullopt;
  BEAMLINE_RETURN_IF_ERROR(response.status());
  return response->item();
}

}  // namespace beamline::cli
