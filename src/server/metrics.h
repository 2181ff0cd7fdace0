// SPDX-License-Identifier: Apache-2.0
//
// What /metrics tells, in Prometheus' text format. What must be measured per request is recorded here, in histograms of
// seconds that add up over replicas: the whole request by status code, its stages (Triton's split: waiting in a queue,
// computing) and each step of decode. Everything else is read when scraped, from counts that exist anyway. Labels are
// bounded: codes, reasons and stages of ours, and the versions that serve now; never a user, an item or a request.
// Thread-safe.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "beamline/engine.h"
#include "prometheus/counter.h"
#include "prometheus/histogram.h"
#include "prometheus/registry.h"
#include "server/server_counters.h"
#include "server/tls_credentials.h"

namespace beamline::server {

class Metrics {
 public:
  Metrics();

  // A request ended after `took`, from its submission to the engine.
  void Ended(const absl::StatusOr<RecommendResult>& result, absl::Duration took);

  // The page. `started`: when the server was; `ready`: what /readyz says.
  struct Scraped {
    const EngineStatus& engine;
    const ServerCounters& server;
    int64_t connections = 0, max_connections = 0;  // of the public listener
    std::optional<TlsStatus> tls;                  // absent: plaintext
    std::optional<DeviceMemory> device_memory;     // absent: the model is not on a device
    std::optional<DevicePasses> device_passes;     // absent: its backend has none
    absl::Time started, now;
    bool ready = false;
  };
  std::string Render(const Scraped& scraped) const;
  // The page before there is a server: the process, and that it loads.
  static std::string RenderLoading();

 private:
  enum Stage : uint8_t { kPrepare, kQueue, kEncode, kDecode, kResolve, kStages };

  // Of requests that end so.
  prometheus::Counter& Requests(const absl::Status& status);
  prometheus::Histogram& Durations(const absl::Status& status);

  prometheus::Registry registry_;
  prometheus::Family<prometheus::Counter>& requests_;
  prometheus::Family<prometheus::Histogram>& durations_;
  prometheus::Family<prometheus::Counter>& narrowed_;
  prometheus::Counter& unknown_items_;
  prometheus::Counter& dropped_events_;
  prometheus::Counter& unseen_histories_;
  std::array<prometheus::Histogram*, kStages> stages_;
  std::array<prometheus::Histogram*, kMaxLevels + 1> steps_;  // one more than levels: an end token may be scored
};

}  // namespace beamline::server
