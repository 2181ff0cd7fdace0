// SPDX-License-Identifier: Apache-2.0
#include "server/metrics.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/log_output.h"
#include "base/program.h"
#include "beamline/retry.h"
#include "prometheus/client_metric.h"
#include "prometheus/metric_family.h"
#include "prometheus/text_serializer.h"
#include "server/process_stats.h"
#include "server/status_detail.h"

namespace beamline::server {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<std::pair<std::string, std::string>>;

// Half a millisecond to ten seconds: an answer from cache on a device, and one that should have been refused.
const prometheus::Histogram::BucketBoundaries kSeconds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                          0.1,    0.25,  0.5,    1,     2.5,  5,     10};

// A step may be far shorter than a request.
const prometheus::Histogram::BucketBoundaries kStepSeconds = {0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                                              0.01,    0.025,  0.05,    0.1,    0.25,  0.5,    1};

// Values read at the time of the scrape, one family per name.
class Page {
 public:
  void Counter(const std::string& name, const std::string& help, uint64_t value, const Labels& labels = {}) {
    Add(MetricType::Counter, name, help, labels).counter.value = static_cast<double>(value);
  }
  void Gauge(const std::string& name, const std::string& help, double value, const Labels& labels = {}) {
    Add(MetricType::Gauge, name, help, labels).gauge.value = value;
  }
  std::vector<MetricFamily> families;

 private:
  // Metrics of one name come one after another.
  ClientMetric& Add(MetricType type, const std::string& name, const std::string& help, const Labels& labels) {
    if (families.empty() || families.back().name != "beamline_" + name) {
      families.push_back({"beamline_" + name, help, type, {}});
    }
    ClientMetric& metric = families.back().metric.emplace_back();
    for (const auto& [key, value] : labels) metric.label.push_back({key, value});
    return metric;
  }
};

// As Prometheus' time() has it.
double UnixSeconds(absl::Time time) { return absl::ToDoubleSeconds(OnTheWall(time) - absl::UnixEpoch()); }

void AddEngine(const EngineStatus& status, Page* page) {
  page->Gauge("queued_requests", "Requests waiting for encode or decode.", static_cast<double>(status.queued));
  page->Gauge("in_flight_requests", "Requests accepted and not answered yet.", static_cast<double>(status.in_flight));
  page->Gauge("executing_beam_rows", "Beam rows of the batches being executed.",
              static_cast<double>(status.executing_rows));
  page->Counter("expired_requests_total",
                "Queued requests whose time ran out, or could no longer suffice; beamline_requests_total has all.",
                status.expired_waiting, {{"while", "waiting"}});
  page->Counter("expired_requests_total", "", status.expired - status.expired_waiting, {{"while", "executing"}});
  page->Gauge("last_success_timestamp_seconds", "When the model last gave an answer, be it to a self-test.",
              UnixSeconds(status.last_success));
  page->Counter("batches_total", "Batches executed.", status.encode_batches, {{"stage", "encode"}});
  page->Counter("batches_total", "", status.decode_batches, {{"stage", "decode"}});
  page->Counter("batched_requests_total", "Requests in executed batches.", status.encode_batched,
                {{"stage", "encode"}});
  page->Counter("batched_requests_total", "", status.decode_batched, {{"stage", "decode"}});
  page->Counter("decode_rows_total", "Beam rows of executed decode batches.", status.decode_rows);
  page->Counter("context_cache_hits_total", "Requests whose encoded history was cached.", status.context_hits);
  page->Counter("context_cache_misses_total", "Requests that had to be encoded.", status.context_misses);
  page->Gauge("context_cache_bytes",
              "Memory of encoded histories, of the version that serves: a version kept for a rollback has its own.",
              static_cast<double>(status.context_cache_bytes));
  page->Gauge("broken_batches", "Batches that failed as a whole since the last good one.",
              static_cast<double>(status.broken_batches));
}

void AddModel(const EngineStatus& status, absl::Time now, Page* page) {
  int64_t in_memory = 0;
  for (const ModelVersion& version : status.versions) {
    in_memory += version.state != "refused" && version.state != "unloaded" ? 1 : 0;
  }
  page->Gauge("model_info", "The versions that new requests use, and what computes their answers.", 1,
              {{"model_version", status.model_version},
               {"catalogue_version", status.catalogue_version},
               {"family", status.family},
               {"device", status.device},
               {"dtype", status.dtype},
               {"backend", status.backend}});
  page->Gauge("model_parameters", "Parameters of the model.", static_cast<double>(status.parameters));
  page->Gauge("catalogue_items", "Items in the catalogue.", static_cast<double>(status.num_items));
  page->Gauge("catalogue_age_seconds", "Since the catalogue was loaded; models that bring the same do not count.",
              absl::ToDoubleSeconds(now - status.catalogue_since));
  page->Gauge("models_in_memory", "Versions of the model in memory or being loaded.", static_cast<double>(in_memory));
  page->Counter("model_swaps_total", "Versions that began to serve, the first one at the start among them.",
                status.models_served, {{"kind", "reload"}});
  page->Counter("model_swaps_total", "", status.rollbacks, {{"kind", "rollback"}});
  page->Counter("models_refused_total", "Bundles that were broken, incompatible or failed in the warm-up.",
                status.models_refused);
  page->Gauge("model_folder_unreadable", "1: the watched folder of versions cannot be listed, or is empty all at once.",
              status.model_folder_unreadable ? 1 : 0);
  page->Gauge("last_model_swap_timestamp_seconds", "When the version that serves began to.",
              UnixSeconds(status.last_swap));
}

void AddServer(const ServerCounters& counters, Page* page) {
  page->Counter("grpc_calls_total",
                "Calls of all methods, but for those that gRPC itself refuses: too large, or compressed.",
                counters.calls.value());
  page->Counter("grpc_failed_calls_total", "Calls that were neither answered nor NOT_FOUND.",
                counters.malformed.value(), {{"cause", "malformed"}});
  const std::pair<const char*, uint64_t> causes[] = {
      {"invalid", counters.invalid.value()},     {"refused", counters.refused.value()},
      {"cancelled", counters.cancelled.value()}, {"expired", counters.expired.value()},
      {"stopping", counters.stopping.value()},   {"failed", counters.failed.value()}};
  for (const auto& [cause, count] : causes) page->Counter("grpc_failed_calls_total", "", count, {{"cause", cause}});
  page->Counter("grpc_refused_connections_total",
                "Connections closed as they came, there were too many; the admin listener's, too.",
                counters.refused_connections.value());
  page->Gauge("grpc_in_flight_calls", "Calls being answered.", static_cast<double>(counters.in_flight.value()));
}

void AddConnections(const Metrics::Scraped& scraped, Page* page) {
  page->Gauge("grpc_connections", "Connections that are open, not those of the admin listener.",
              static_cast<double>(scraped.connections));
  page->Gauge("grpc_max_connections", "How many there may be: limits.max_connections, or what the open files allow.",
              static_cast<double>(scraped.max_connections));
}

void AddTls(const TlsStatus& status, Page* page) {
  page->Gauge("tls_certificate_expiry_timestamp_seconds", "When the certificate in use expires.",
              absl::ToDoubleSeconds(status.expiry - absl::UnixEpoch()));
  page->Counter("tls_reloads_total", "Changes of the TLS files.", status.reloads, {{"result", "taken"}});
  page->Counter("tls_reloads_total", "", status.refused, {{"result", "refused"}});
  page->Counter("tls_failed_handshakes_total",
                "Handshakes that failed: no certificate or one of nobody we know, no TLS at all, a client that does "
                "not know ours.",
                status.failed_handshakes);
}

void AddDevice(const DeviceMemory& memory, Page* page) {
  page->Gauge("device_memory_total_bytes", "Memory of the device that the model is on.",
              static_cast<double>(memory.total));
  page->Gauge("device_memory_free_bytes", "Of these, what nobody has.", static_cast<double>(memory.free));
  page->Gauge("device_memory_used_bytes", "Of these, what all processes have.",
              static_cast<double>(memory.total - memory.free));
}

void AddPasses(const DevicePasses& passes, Page* page) {
  page->Counter("device_passes_total",
                "Encodes and searches by how the device was asked: from a graph, making one, or op by op.",
                passes.graph, {{"by", "graph"}});
  page->Counter("device_passes_total", "", passes.captured, {{"by", "capture"}});
  page->Counter("device_passes_total", "", passes.enqueued, {{"by", "ops"}});
  page->Counter("device_graph_nodes_total",
                "Nodes of the graphs that were made, by kind: others copy, wait or allocate, and there should be none.",
                passes.kernel_nodes, {{"kind", "kernel"}});
  page->Counter("device_graph_nodes_total", "", passes.memset_nodes, {{"kind", "memset"}});
  page->Counter("device_graph_nodes_total", "", passes.other_nodes, {{"kind", "other"}});
}

void AddLog(Page* page) {
  page->Counter("log_lines_left_out_total", "Log lines that were not written.", SuppressedLogLines(),
                {{"cause", "rate_limit"}});
  page->Counter("log_lines_left_out_total", "", LostLogLines(), {{"cause", "stuck_reader"}});
}

// Named as Prometheus' own client libraries do.
void AddProcess(Page* page) {
  const ProcessStats stats = ReadProcessStats();
  const auto add = [page](MetricType type, const char* name, const char* help, double value) {
    ClientMetric metric;
    (type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    page->families.push_back({name, help, type, {std::move(metric)}});
  };
  add(MetricType::Gauge, "process_start_time_seconds", "When the process began, in seconds since 1970.",
      stats.start_seconds);
  add(MetricType::Counter, "process_cpu_seconds_total", "Time spent on the CPU.", stats.cpu_seconds);
  add(MetricType::Gauge, "process_resident_memory_bytes", "Resident memory.",
      static_cast<double>(stats.resident_bytes));
  add(MetricType::Gauge, "process_virtual_memory_bytes", "Virtual memory.", static_cast<double>(stats.virtual_bytes));
  add(MetricType::Gauge, "process_open_fds", "Open files.", static_cast<double>(stats.open_fds));
  add(MetricType::Gauge, "process_max_fds", "Open files there may be.", static_cast<double>(stats.max_fds));
}

void AddReadiness(bool loading, bool ready, Page* page) {
  page->Gauge("build_info", "The program.", 1, {{"version", ProgramVersion()}, {"commit", ProgramCommit()}});
  page->Gauge("loading", "1 until the first model serves.", loading ? 1 : 0);
  page->Gauge("ready", "1 where /readyz says so.", ready ? 1 : 0);
}

}  // namespace

Metrics::Metrics()
    : requests_(prometheus::BuildCounter()
                    .Name("beamline_requests_total")
                    .Help("Recommendation requests ended, by status code and, for errors, machine-readable reason.")
                    .Register(registry_)),
      durations_(prometheus::BuildHistogram()
                     .Name("beamline_request_duration_seconds")
                     .Help("From a request's submission to its end, by status code.")
                     .Register(registry_)),
      narrowed_(prometheus::BuildCounter()
                    .Name("beamline_narrowed_requests_total")
                    .Help("Requests answered with fewer beams than asked for, by step of engine.narrowing.")
                    .Register(registry_)),
      unknown_items_(prometheus::BuildCounter()
                         .Name("beamline_history_unknown_items_total")
                         .Help("Items of answered requests' histories that the catalogue lacks: it, or who asks, lags.")
                         .Register(registry_)
                         .Add({})),
      dropped_events_(prometheus::BuildCounter()
                          .Name("beamline_history_dropped_events_total")
                          .Help("Events of answered requests' histories that the catalogue has and the model's windows "
                                "do not take: too old, or no positive feedback.")
                          .Register(registry_)
                          .Add({})),
      unseen_histories_(prometheus::BuildCounter()
                            .Name("beamline_history_unseen_total")
                            .Help("Requests answered as a new user's though they had a history: all of it was unknown "
                                  "or dropped.")
                            .Register(registry_)
                            .Add({})) {
  auto& stages = prometheus::BuildHistogram()
                     .Name("beamline_stage_duration_seconds")
                     .Help("Where answered requests spent their time: waiting in a queue, computing, on the host.")
                     .Register(registry_);
  const char* const names[kStages] = {"prepare", "queue", "encode", "decode", "resolve"};
  for (int stage = 0; stage < kStages; ++stage) stages_[stage] = &stages.Add({{"stage", names[stage]}}, kSeconds);
  auto& steps = prometheus::BuildHistogram()
                    .Name("beamline_decode_step_duration_seconds")
                    .Help(
                        "Of answered requests, each step of the beam search: one per level of the semantic ID. "
                        "None on backend cuda, where the device runs all of them in one go.")
                    .Register(registry_);
  for (size_t step = 0; step < steps_.size(); ++step) {
    steps_[step] = &steps.Add({{"step", absl::StrCat(step + 1)}}, kStepSeconds);
  }
  // What rules look at begins with 0: a counter that comes with its first events has, to rate(), none of them.
  for (const absl::Status& status :
       {absl::OkStatus(), absl::CancelledError(), absl::DeadlineExceededError(""), absl::UnavailableError(""),
        absl::InternalError(""), absl::UnknownError(""), absl::DataLossError(""), absl::FailedPreconditionError(""),
        absl::ResourceExhaustedError(""), Refusal(kCannotFinish, "", absl::ZeroDuration()),
        Refusal(kQueueFull, "", absl::ZeroDuration()), Refusal(kPushedOut, "", absl::ZeroDuration())}) {
    Requests(status);
    Durations(status);
  }
}

prometheus::Counter& Metrics::Requests(const absl::Status& status) {
  return requests_.Add({{"code", absl::StatusCodeToString(status.code())},
                        {"reason", status.ok() ? std::string() : DetailOf(status).reason()}});
}

prometheus::Histogram& Metrics::Durations(const absl::Status& status) {
  return durations_.Add({{"code", absl::StatusCodeToString(status.code())}}, kSeconds);
}

void Metrics::Ended(const absl::StatusOr<RecommendResult>& result, absl::Duration took) {
  Requests(result.status()).Increment();
  Durations(result.status()).Observe(absl::ToDoubleSeconds(took));
  if (!result.ok()) return;
  unknown_items_.Increment(result->unknown_items);
  dropped_events_.Increment(result->dropped_events);
  if (result->seen_events == 0 && result->unknown_items + result->dropped_events > 0) unseen_histories_.Increment();
  if (result->narrowing > 0) narrowed_.Add({{"step", absl::StrCat(result->narrowing)}}).Increment();
  stages_[kPrepare]->Observe(absl::ToDoubleSeconds(result->timings.prepare));
  if (result->timings.encode_requests > 0) stages_[kEncode]->Observe(absl::ToDoubleSeconds(result->timings.encode));
  if (result->timings.decode_requests > 0) {  // or the model was not asked: nothing was eligible
    stages_[kQueue]->Observe(absl::ToDoubleSeconds(result->timings.queue));
    stages_[kDecode]->Observe(absl::ToDoubleSeconds(result->timings.decode));
  }
  stages_[kResolve]->Observe(absl::ToDoubleSeconds(result->timings.resolve));
  const std::vector<absl::Duration>& steps = result->timings.steps;
  for (size_t step = 0; step < std::min(steps.size(), steps_.size()); ++step) {
    steps_[step]->Observe(absl::ToDoubleSeconds(steps[step]));
  }
}

std::string Metrics::RenderLoading() {
  Page page;
  AddReadiness(/*loading=*/true, /*ready=*/false, &page);
  AddLog(&page);
  AddProcess(&page);
  return prometheus::TextSerializer().Serialize(page.families);
}

std::string Metrics::Render(const Scraped& scraped) const {
  Page page;
  AddReadiness(/*loading=*/false, scraped.ready, &page);
  page.Gauge("start_timestamp_seconds", "When the server had loaded its model and began to serve.",
             UnixSeconds(scraped.started));
  AddEngine(scraped.engine, &page);
  AddModel(scraped.engine, scraped.now, &page);
  AddServer(scraped.server, &page);
  AddConnections(scraped, &page);
  if (scraped.tls) AddTls(*scraped.tls, &page);
  if (scraped.device_memory) AddDevice(*scraped.device_memory, &page);
  if (scraped.device_passes) AddPasses(*scraped.device_passes, &page);
  AddLog(&page);
  AddProcess(&page);
  std::vector<MetricFamily> families = registry_.Collect();
  families.insert(families.end(), page.families.begin(), page.families.end());
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace beamline::server
