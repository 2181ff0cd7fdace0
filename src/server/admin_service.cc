// SPDX-License-Identifier: Apache-2.0
#include "server/admin_service.h"

#include <algorithm>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/interrupt.h"
#include "beamline/retry.h"
#include "beamline/status.h"
#include "beamline/v1/admin.grpc.pb.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

using RawAdminService = v1::AdminService::WithRawCallbackMethod_Reload<
    v1::AdminService::WithRawCallbackMethod_Rollback<v1::AdminService::Service>>;

constexpr int64_t kMaxPathBytes = 4096;

// The system would read a path up to its NUL, and a log would show a line break as two lines.
absl::Status CheckBundlePath(const std::string& path) {
  BEAMLINE_RETURN_IF_ERROR(CheckCount("bundle", static_cast<int64_t>(path.size()), {0, kMaxPathBytes, "bytes"}));
  const auto control = std::find_if(path.begin(), path.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
  if (control == path.end()) return absl::OkStatus();
  return InvalidField({kFieldInvalid, "bundle", "no control characters", absl::StrCat(int{*control}),
                       absl::StrCat("holds control character ", int{*control}, " at byte ", control - path.begin(),
                                    "; give a path without any")});
}

// Why there is no new version. What the folder that the request named is not, or does not hold, is told of its field;
// what else is missing (engine.catalogue) is not. A stop gives up the load under way, which is no failure.
absl::Status Explained(const absl::Status& status, absl::string_view bundle) {
  if (absl::IsUnavailable(status) && Interrupted()) return WithReason(status, kStopping);
  if (absl::IsResourceExhausted(status) && GetRefusalReason(status).empty()) return WithReason(status, kOutOfMemory);
  const bool of_the_folder = (absl::IsInvalidArgument(status) || absl::IsNotFound(status)) && !bundle.empty() &&
                             absl::StrContains(status.message(), bundle);
  return of_the_folder ? WithReason(status, DetailOf(status).reason(), "bundle") : status;
}

// Ends the call with the version that now serves, or with why not. `bundle`: as the request named it; may be empty.
template <typename Response>
Engine::ReloadCallback Answer(std::shared_ptr<UnaryCall> call, const std::string& bundle) {
  return [call = std::move(call), bundle](absl::StatusOr<ModelVersion> result) {
    if (!result.ok()) {
      call->Finish(Explained(result.status(), bundle));
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
        service_, *context, {*bytes, response},
        [this](const auto& call, const CallContext&, const v1::ReloadRequest& request) -> absl::Status {
          BEAMLINE_RETURN_IF_ERROR(CheckBundlePath(request.bundle()));
          service_.engine->Reload(request.bundle(), Answer<v1::ReloadResponse>(call, request.bundle()));
          return absl::OkStatus();
        });
  }

  grpc::ServerUnaryReactor* Rollback(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                     grpc::ByteBuffer* response) override {
    return Serve<v1::RollbackRequest>(service_, *context, {*bytes, response},
                                      [this](const auto& call, const CallContext&, const v1::RollbackRequest&) {
                                        service_.engine->Rollback(Answer<v1::RollbackResponse>(call, ""));
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
