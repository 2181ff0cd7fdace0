// SPDX-License-Identifier: Apache-2.0
//
// How every method begins: the headers' size, deadline and trace context are read once, the bytes are parsed, and the
// method's own code gets a message. Its error, or an error before it, finishes the call; either way the trailing
// metadata names our span (`traceresponse`, in the form of W3C's traceparent). What services share lives here too.
// Thread-safe.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/run_catching.h"
#include "beamline/engine.h"
#include "beamline/status.h"
#include "grpcpp/server_context.h"
#include "server/flight_recorder.h"
#include "server/metrics.h"
#include "server/request_id.h"
#include "server/server_counters.h"
#include "server/translate.h"
#include "server/unary_call.h"
#include "server/wire.h"

namespace beamline::server {

struct CallLimits {
  int64_t max_unknown_field_bytes = 65536;
  int64_t max_metadata_bytes = 16384;
  int64_t max_send_bytes = 16 << 20;
  int max_batch_users = 256;
  int max_lookup_items = 1000;
  absl::Duration default_deadline = absl::Seconds(2);
  absl::Duration max_deadline = absl::Minutes(1);
  int64_t retry_after_ms = 50;
};

// What all services work with. The engine and the clock outlive the server.
struct ServiceContext {
  Engine* engine = nullptr;
  const Clock* clock = nullptr;
  CallLimits limits;
  RequestLimits request_limits;  // levels are read from the catalogue per request
  absl::Time started;
  ServerCounters counters;
  // Shared with the engine's callbacks, of which a slow engine may run some when the server is gone.
  const std::shared_ptr<Metrics> metrics = std::make_shared<Metrics>();
  std::shared_ptr<FlightRecorder> recorder = std::make_shared<FlightRecorder>(FlightRecorder::Options{});
  std::atomic<bool> leaving{false};   // it still takes calls, and tells that it is not ready
  std::atomic<bool> stopping{false};  // seq_cst: a call that counted itself before the flag is seen by the stop
};

struct CallContext {
  absl::Time deadline;
  TraceParent trace;
};

// What a request may ask for: the levels are those of the catalogue that serves.
RequestLimits LimitsNow(const ServiceContext& service);

// `client` is what the call brought. Pure.
absl::Time ClampDeadline(absl::Time now, std::optional<absl::Time> client, const CallLimits& limits);

// When the users of a batch must be done, so that one who ends at the last moment does not cost the others their
// answers, which have to be put together and sent: 2 ms before the call's deadline, or a fiftieth of its time where
// that is more; never more than half of it. Pure.
absl::Time BatchDeadline(absl::Time now, absl::Time deadline);

// The caller's trace (`traceparent`) with a span of ours, or a new one.
TraceParent TraceOf(const grpc::ServerContextBase& context);

// UNAVAILABLE while stopping, RESOURCE_EXHAUSTED for too much metadata, DEADLINE_EXCEEDED when it has passed.
absl::StatusOr<CallContext> ReadCallContext(const grpc::ServerContextBase& context, const ServiceContext& service,
                                            TraceParent trace);

// REQUIRES: `handle` finishes the call, now or later, unless it returns an error.
template <typename Request>
using MethodHandler =
    std::function<absl::Status(const std::shared_ptr<UnaryCall>&, const CallContext&, const Request&)>;

struct CallBytes {
  const grpc::ByteBuffer& request;
  grpc::ByteBuffer* response;
};

template <typename Request>
grpc::ServerUnaryReactor* Serve(ServiceContext& service, grpc::CallbackServerContext& context, const CallBytes& bytes,
                                const MethodHandler<Request>& handle) {
  auto call = UnaryCall::Begin(
      {service.clock, &service.counters, &context, service.limits.retry_after_ms, service.limits.max_send_bytes},
      bytes.response);
  grpc::ServerUnaryReactor* const reactor = call->reactor();
  TraceParent trace = TraceOf(context);
  context.AddTrailingMetadata("traceresponse", trace.ToString());
  absl::StatusOr<CallContext> call_context = ReadCallContext(context, service, std::move(trace));
  absl::Status status = call_context.status();
  if (status.ok()) {
    call->set_deadline(call_context->deadline);
    // What is thrown from here gRPC would answer with UNIMPLEMENTED, and the call would be in flight for ever.
    status = ReturnCatching("the call", [&]() -> absl::Status {
      Request request;
      BEAMLINE_RETURN_IF_ERROR(ParseMessage(bytes.request, service.limits.max_unknown_field_bytes, &request));
      return handle(call, *call_context, request);
    });
  }
  if (!status.ok()) call->Finish(status);
  return reactor;
}

}  // namespace beamline::server
