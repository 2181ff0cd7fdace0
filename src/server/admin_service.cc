// SPDX-License-Identifier: Apache-2.0
#include "server/admin_service.h"

#include "beamline/status.h"
#include "beamline/v1/admin.grpc.pb.h"

namespace beamline::server {
namespace {

using RawAdminService = v1::AdminService::WithRawCallbackMethod_Reload<
    v1::AdminService::WithRawCallbackMethod_Rollback<v1::AdminService::Service>>;

constexpr int64_t kMaxPathBytes = 4096;

// Ends the call with the version that now serves, or with why not.
template <typename Response>
Engine::ReloadCallback Answer(std::shared_ptr<UnaryCall> call) {
  return [call = std::move(call)](absl::StatusOr<ModelVersion> result) {
    if (!result.ok()) {
      call->Finish(result.status());
      return;
    }
    Response response;
    *response.mutable_serving() = ToProto(*result);
    call->Finish(response);
  };
}

class AdminHandlers final : public RawAdminService {
 public:
  explicit AdminHandlers(ServiceContext* service) : service_(*service) {}

  grpc::ServerUnaryReactor* Reload(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                   grpc::ByteBuffer* response) override {
    return Serve<v1::ReloadRequest>(
        service_, *context, *bytes, response,
        [this](const auto& call, const CallContext&, const v1::ReloadRequest& request) -> absl::Status {
          const auto path_bytes = static_cast<int64_t>(request.bundle().size());
          BEAMLINE_RETURN_IF_ERROR(CheckRange("bundle", path_bytes, 0, kMaxPathBytes));
          service_.engine->Reload(request.bundle(), Answer<v1::ReloadResponse>(call));
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* Rollback(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* response) override {
    return Serve<v1::RollbackRequest>(service_, *context, *bytes, response,
                                      [this](const auto& call, const CallContext&, const v1::RollbackRequest&) {
                                        service_.engine->Rollback(Answer<v1::RollbackResponse>(call));
                                        return absl::OkStatus();
                                      });
  }

 private:
  ServiceContext& service_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeAdminService(ServiceContext* service) {
  return std::make_unique<AdminHandlers>(service);
}

}  // namespace beamline::server
