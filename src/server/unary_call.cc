// SPDX-License-Identifier: Apache-2.0
#include "server/unary_call.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "grpcpp/server_context.h"
#include "server/grpc_status.h"
#include "server/status_detail.h"
#include "server/wire.h"

namespace beamline::server {
namespace {

absl::Status TooLarge(int64_t bytes, int64_t limit) {
  return InvalidField({kAnswerTooLarge, "", absl::StrCat(limit), absl::StrCat(bytes),
                       absl::StrCat("the answer has ", bytes, " bytes, more than the limit of ", limit,
                                    " (limits.max_send_bytes): ask for less in one call")});
}

}  // namespace

// gRPC's view of the call. Its life is gRPC's: it ends with OnDone, after Finish and after every OnCancel.
class UnaryCall::Reactor final : public grpc::ServerUnaryReactor {
 public:
  explicit Reactor(std::shared_ptr<UnaryCall> call) : call_(std::move(call)) {}

  void OnCancel() override {
    const std::shared_ptr<UnaryCall> call = call_;  // Cancel finishes this reactor
    call->Cancel();
  }
  void OnDone() override {
    call_->options_.counters->in_flight.Add(-1);
    delete this;
  }
  // Both run where gRPC notices, instead of waking a thread of its executor: they take no lock that gRPC's callers
  // hold, and wait for nothing.
  bool InternalInlineable() override { return true; }

 private:
  const std::shared_ptr<UnaryCall> call_;
};

std::shared_ptr<UnaryCall> UnaryCall::Begin(const Options& options, grpc::ByteBuffer* response) {
  options.counters->calls.Add();
  options.counters->in_flight.Add(1);
  std::shared_ptr<UnaryCall> call(new UnaryCall(options, response));
  call->reactor_ = std::make_unique<Reactor>(call).release();
  return call;
}

void UnaryCall::OnCancel(Engine::Canceller canceller) {
  {
    std::lock_guard lock(mu_);
    if (state_ == State::kEnded) return;
    if (state_ == State::kOpen) {
      cancellers_.push_back(std::move(canceller));
      return;
    }
  }
  canceller();
}

void UnaryCall::Cancel() {
  std::vector<Engine::Canceller> cancellers;
  {
    std::lock_guard lock(mu_);
    if (state_ != State::kOpen) return;
    state_ = State::kCancelled;
    cancellers.swap(cancellers_);
  }
  const bool expired = RanOutOfTime(begun_, deadline_, options_.clock->Now());
  FinishWith(expired ? absl::DeadlineExceededError("the deadline passed")
                     : absl::CancelledError("the client cancelled"));
  // Unlocked: a canceller may run the engine's callback, which comes back to Finish.
  for (Engine::Canceller& canceller : cancellers) canceller();
}

bool UnaryCall::End() {
  std::vector<Engine::Canceller> unused;  // destroyed unlocked
  std::lock_guard lock(mu_);
  if (state_ != State::kOpen) return false;
  state_ = State::kEnded;
  unused.swap(cancellers_);
  return true;
}

bool UnaryCall::Finish(const google::protobuf::Message& response) {
  const auto bytes = static_cast<int64_t>(response.ByteSizeLong());
  if (bytes > options_.max_send_bytes) return Finish(TooLarge(bytes, options_.max_send_bytes));
  grpc::ByteBuffer serialized = SerializeMessage(response);  // before the end: it may throw, and an error must follow
  if (!End()) return false;
  response_->Swap(&serialized);
  reactor_->Finish(grpc::Status::OK);
  return true;
}

bool UnaryCall::Finish(const absl::Status& error) {
  if (!End()) return false;
  FinishWith(error);
  return true;
}

void UnaryCall::FinishWith(const absl::Status& error) {
  options_.counters->Ended(error);
  if (const auto pushback = RetryPushback(error, options_.retry_after_ms); pushback.has_value()) {
    options_.context->AddTrailingMetadata("grpc-retry-pushback-ms", absl::StrCat(*pushback));
  }
  reactor_->Finish(ToGrpcStatus(error, options_.retry_after_ms));
}

}  // namespace beamline::server
