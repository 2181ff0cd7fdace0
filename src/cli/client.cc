// SPDX-License-Identifier: Apache-2.0
#include "cli/client.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "beamline/status.h"
#include "grpcpp/grpcpp.h"
#include "server/grpc_status.h"

namespace beamline::cli {
namespace {

// A context is used once, so every call makes its own.
class Call {
 public:
  explicit Call(absl::Duration timeout) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
    context_.set_wait_for_ready(false);
  }
  grpc::ClientContext* get() { return &context_; }

 private:
  grpc::ClientContext context_;
};

std::string Hint(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kUnavailable:
      return "; is `beamline serve` running there?";
    case absl::StatusCode::kDeadlineExceeded:
      return "; give more time with --timeout-ms";
    case absl::StatusCode::kUnimplemented:
      return "; is this a Beamline server, and for `reload` its admin listener?";
    default:
      return "";
  }
}

}  // namespace

Client::Client(const std::string& target, absl::Duration timeout) : target_(target), timeout_(timeout) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(64 << 20);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);  // the target is meant literally
  const auto channel = grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
  recommend_ = v1::RecommendService::NewStub(channel);
  catalogue_ = v1::CatalogueService::NewStub(channel);
  model_ = v1::ModelService::NewStub(channel);
  admin_ = v1::AdminService::NewStub(channel);
}

absl::Status Client::Explain(const grpc::Status& grpc_status) const {
  if (grpc_status.ok()) return absl::OkStatus();
  const absl::Status status = server::FromGrpcStatus(grpc_status);
  return absl::Status(status.code(), absl::StrCat(target_, ": ", absl::StatusCodeToString(status.code()), ": ",
                                                  status.message(), Hint(status.code())));
}

absl::StatusOr<v1::RecommendResponse> Client::Recommend(const v1::RecommendRequest& request) {
  Call call(timeout_);
  v1::RecommendResponse response;
  BEAMLINE_RETURN_IF_ERROR(Explain(recommend_->Recommend(call.get(), request, &response)));
  return response;
}

absl::StatusOr<v1::GetStatusResponse> Client::GetStatus() {
  Call call(timeout_);
  v1::GetStatusResponse response;
  BEAMLINE_RETURN_IF_ERROR(Explain(model_->GetStatus(call.get(), {}, &response)));
  return response;
}

absl::StatusOr<v1::ModelVersion> Client::Reload(const std::string& bundle) {
  Call call(timeout_);
  v1::ReloadRequest request;
  request.set_bundle(bundle);
  v1::ReloadResponse response;
  BEAMLINE_RETURN_IF_ERROR(Explain(admin_->Reload(call.get(), request, &response)));
  return response.serving();
}

absl::StatusOr<v1::ModelVersion> Client::Rollback() {
  Call call(timeout_);
  v1::RollbackResponse response;
  BEAMLINE_RETURN_IF_ERROR(Explain(admin_->Rollback(call.get(), {}, &response)));
  return response.serving();
}

absl::StatusOr<std::optional<v1::Item>> Client::GetItem(ItemId item) {
  Call call(timeout_);
  v1::GetItemRequest request;
  request.set_item_id(item);
  v1::GetItemResponse response;
  const grpc::Status status = catalogue_->GetItem(call.get(), request, &response);
  if (status.error_code() == grpc::StatusCode::NOT_FOUND) return std::nullopt;
  BEAMLINE_RETURN_IF_ERROR(Explain(status));
  return response.item();
}

}  // namespace beamline::cli
