// SPDX-License-Identifier: Apache-2.0
#include "server/recommend_service.h"

#include <functional>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "beamline/status.h"
#include "beamline/v1/recommend.grpc.pb.h"
#include "server/grpc_status.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

using RawRecommendService = v1::RecommendService::WithRawCallbackMethod_Recommend<
    v1::RecommendService::WithRawCallbackMethod_BatchRecommend<v1::RecommendService::Service>>;

// Worth a line: an error where it is our fault, a warning where there was too little of us or of time. Ids only, never
// what the user did. A caller's mistake is told to the caller, and counted.
void LogFailure(const absl::Status& status, const FlightRecord& record) {
  if (record.blame == Blame::kCaller) return;
  const bool load = record.blame == Blame::kLoad;
  LogEvent(load ? spdlog::level::warn : spdlog::level::err, load ? "request not served" : "request failed",
           {{"request_id", record.request_id},
            {"trace_id", record.trace_id},
            {"span_id", record.span_id},
            {"total_ms", record.total_us / 1000},
            {"error", LogText(status)}});
}

// The answers of one batch, filled in any order from the engine's threads; the last one finishes the call.
class Batch {
 public:
  Batch(std::shared_ptr<UnaryCall> call, int users, int64_t retry_after_ms)
      : call_(std::move(call)), retry_after_ms_(retry_after_ms), remaining_(users) {
    for (int i = 0; i < users; ++i) response_.add_results();
  }

  void Set(int index, v1::BatchRecommendResponse::Result result) {
    {
      std::lock_guard lock(mu_);
      *response_.mutable_results(index) = std::move(result);
      if (--remaining_ > 0) return;
    }
    call_->Finish(response_);  // nobody writes any more
  }
  void Set(int index, const absl::Status& error) {
    Set(index, ToBatchResult(PrefixField(error, absl::StrCat("requests[", index, "]")), retry_after_ms_));
  }

 private:
  const std::shared_ptr<UnaryCall> call_;
  const int64_t retry_after_ms_;
  std::mutex mu_;
  v1::BatchRecommendResponse response_;  // guarded by mu_ while remaining_ > 0
  int remaining_;                        // guarded by mu_
};

class RecommendHandlers final : public RawRecommendService {
 public:
  explicit RecommendHandlers(ServiceContext* service) : service_(*service) {}

  grpc::ServerUnaryReactor* Recommend(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                      grpc::ByteBuffer* response) override {
    return Serve<v1::RecommendRequest>(service_, *context, {*bytes, response},
                                       [this](const auto& call, const CallContext& call_context, const auto& message) {
                                         return HandleOne(call, call_context, message);
                                       });
  }

  grpc::ServerUnaryReactor* BatchRecommend(grpc::CallbackServerContext* context, const grpc::ByteBuffer* bytes,
                                           grpc::ByteBuffer* response) override {
    return Serve<v1::BatchRecommendRequest>(
        service_, *context, {*bytes, response},
        [this](const auto& call, const CallContext& call_context, const auto& message) {
          return HandleBatch(call, call_context, message);
        });
  }

 private:
  using Answered = std::function<void(absl::StatusOr<v1::RecommendResponse>)>;

  absl::Status HandleOne(const std::shared_ptr<UnaryCall>& call, const CallContext& call_context,
                         const v1::RecommendRequest& message) {
    absl::StatusOr<RecommendRequest> request = FromProto(message, LimitsNow(service_));
    if (!request.ok()) return RecordInvalid(request.status(), message, call_context);
    request->deadline = call_context.deadline;
    Submit(call, call_context, *std::move(request), [call](absl::StatusOr<v1::RecommendResponse> response) {
      if (response.ok()) {
        call->Finish(*response);
      } else {
        call->Finish(response.status());
      }
    });
    return absl::OkStatus();
  }

  absl::Status HandleBatch(const std::shared_ptr<UnaryCall>& call, const CallContext& call_context,
                           const v1::BatchRecommendRequest& message) {
    const int users = message.requests_size();
    if (users == 0) return InvalidField({kFieldMissing, "requests", "", "", "missing: give at least one request"});
    BEAMLINE_RETURN_IF_ERROR(CheckCount("requests", users, {1, service_.limits.max_batch_users, "users"}));
    auto batch = std::make_shared<Batch>(call, users, service_.limits.retry_after_ms);
    const RequestLimits limits = LimitsNow(service_);
    const absl::Time deadline = BatchDeadline(service_.clock->Now(), call_context.deadline);
    std::vector<std::pair<int, RecommendRequest>> good;  // all before the first is submitted: they are a company
    good.reserve(users);
    for (int i = 0; i < users; ++i) {
      absl::StatusOr<RecommendRequest> request = FromProto(message.requests(i), limits);
      if (request.ok()) {
        good.emplace_back(i, *std::move(request));
      } else {
        batch->Set(i, RecordInvalid(request.status(), message.requests(i), call_context));
      }
    }
    const auto company = std::make_shared<Company>(static_cast<int>(good.size()));
    for (auto& [i, request] : good) {
      request.deadline = deadline;
      request.company = company;
      Submit(call, call_context, std::move(request), [batch, i = i](absl::StatusOr<v1::RecommendResponse> response) {
        if (!response.ok()) return batch->Set(i, response.status());
        v1::BatchRecommendResponse::Result entry;
        *entry.mutable_response() = *std::move(response);
        batch->Set(i, std::move(entry));
      });
    }
    return absl::OkStatus();
  }

  // A request that a field of it kept from the engine is told like one that the engine ended. Returns `error`.
  absl::Status RecordInvalid(const absl::Status& error, const v1::RecommendRequest& message,
                             const CallContext& call_context) {
    RecommendRequest request;
    request.request_id = message.request_id();
    FlightRecord record = BeginRecord(request, call_context.trace);
    record.history_events = message.history_size();
    record.top_k = message.top_k();
    service_.metrics->Ended(error, absl::ZeroDuration());
    EndRecord(error, absl::ZeroDuration(), service_.clock->Now(), &record);
    service_.recorder->Add(record);
    return error;
  }

  // The callback holds nothing of the server: a slow engine may run it when the server is gone.
  void Submit(const std::shared_ptr<UnaryCall>& call, const CallContext& call_context, RecommendRequest request,
              Answered answered) {
    auto ended = [metrics = service_.metrics, recorder = service_.recorder, clock = service_.clock,
                  begun = service_.clock->Now(), id = request.request_id,
                  record = BeginRecord(request, call_context.trace),
                  answered = std::move(answered)](absl::StatusOr<RecommendResult> result) mutable {
      const absl::Time now = clock->Now();
      metrics->Ended(result, now - begun);
      EndRecord(result, now - begun, now, &record);
      recorder->Add(record);
      if (result.ok()) {
        answered(server::ToProto(*result, id));
      } else {
        LogFailure(result.status(), record);
        answered(result.status());
      }
    };
    call->OnCancel(service_.engine->Submit(std::move(request), std::move(ended)));
  }

  ServiceContext& service_;
};

}  // namespace

std::unique_ptr<grpc::Service> MakeRecommendService(ServiceContext* service) {
  return std::make_unique<RecommendHandlers>(service);
}

}  // namespace beamline::server
