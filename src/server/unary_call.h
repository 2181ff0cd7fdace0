// SPDX-License-Identifier: Apache-2.0
//
// One unary call on gRPC's callback API, from the handler to its one Finish. Whoever works on the call holds it through
// a shared_ptr and may finish it from any thread; only the first Finish counts, so an answer, a cancellation and a stop
// of the server may race. A client that goes away ends the call at once, without waiting for the engine: that keeps
// Server::Shutdown from hanging behind a stuck engine. What the work left behind (the engine's canceller) is called
// then, outside every lock. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "beamline/engine.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"
#include "grpcpp/support/server_callback.h"
#include "server/server_counters.h"

namespace beamline::server {

class UnaryCall {
 public:
  struct Options {
    const Clock* clock = nullptr;
    ServerCounters* counters = nullptr;
    grpc::CallbackServerContext* context = nullptr;  // gRPC's, until the reactor is done
    int64_t retry_after_ms = 0;
    int64_t max_send_bytes = 16 << 20;
  };

  // Counts the call and makes its reactor, which deletes itself when gRPC is done with it. `response` is gRPC's and
  // is written at most once, just before the reactor finishes.
  static std::shared_ptr<UnaryCall> Begin(const Options& options, grpc::ByteBuffer* response);

  // What the handler returns to gRPC. Valid until the handler has returned.
  grpc::ServerUnaryReactor* reactor() const { return reactor_; }

  // When the client stops waiting: tells a cancellation from an expiry (base/deadline.h). Set before work begins.
  void set_deadline(absl::Time deadline) { deadline_ = deadline; }

  // Called when the client goes away; at once when it already has; never when the call has ended.
  void OnCancel(Engine::Canceller canceller);

  // The first Finish ends the call; later ones do nothing. True for the first. INVALID_ARGUMENT for the client where
  // `response` is larger than may be sent: gRPC would call that RESOURCE_EXHAUSTED, and he would try again.
  bool Finish(const google::protobuf::Message& response);
  bool Finish(const absl::Status& error);

 private:
  class Reactor;
  enum class State { kOpen, kCancelled, kEnded };  // the last two have finished the reactor, or are about to

  UnaryCall(const Options& options, grpc::ByteBuffer* response)
      : options_(options), response_(response), begun_(options.clock->Now()) {}
  bool End();  // true for the one caller that may use the reactor and the response afterwards
  void FinishWith(const absl::Status& error);  // REQUIRES: the caller ended the call
  void Cancel();

  const Options options_;
  grpc::ByteBuffer* const response_;
  grpc::ServerUnaryReactor* reactor_ = nullptr;  // outlives the first Finish's call to it, and nothing more
  const absl::Time begun_;
  absl::Time deadline_ = absl::InfiniteFuture();
  std::mutex mu_;
  State state_ = State::kOpen;                 // guarded by mu_
  std::vector<Engine::Canceller> cancellers_;  // guarded by mu_
};

}  // namespace beamline::server
