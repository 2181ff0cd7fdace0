// SPDX-License-Identifier: Apache-2.0
#include "server/lifecycle.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>

#include <signal.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "beamline/status.h"
#include "server/admin_http.h"
#include "server/admin_pages.h"
#include "server/config.h"
#include "server/core_dumps.h"
#include "server/open_files.h"
#include "server/server.h"
#include "server/server_counters.h"

namespace beamline::server {
namespace {

constexpr absl::Duration kReadinessPeriod = absl::Milliseconds(250);
constexpr absl::Duration kPoll = absl::Milliseconds(5);
constexpr absl::Duration kWatchdogMargin = absl::Seconds(1);
constexpr int kInterruptedExit = 130;

// Waits for the last call, a stop of rank `stop_count` or the deadline; returns the calls still in flight.
int64_t AwaitCalls(const Server& server, const StopRequests& stop, int stop_count, absl::Time deadline) {
  while (server.in_flight() > 0 && absl::Now() < deadline) {
    if (stop.WaitFor(stop_count, kPoll)) break;
  }
  return server.in_flight();
}

// Work for an engine that is not ready: nobody else sends it any, and only success makes it ready again.
class SelfTest {
 public:
  void Run(Engine& engine) {
    if (running_->exchange(true)) return;
    RecommendRequest request;
    request.request_id = request.user_id = "self-test";
    request.top_k = 1;
    engine.Submit(std::move(request),
                  [running = running_](const absl::StatusOr<RecommendResult>&) { running->store(false); });
  }

 private:
  const std::shared_ptr<std::atomic<bool>> running_ = std::make_shared<std::atomic<bool>>(false);
};

const char* TlsKind(const config::v1::ServerConfig& config) {
  return !config.has_tls() ? "off" : config.tls().client_ca().empty() ? "server" : "mutual";
}

// The longest stop there is without anything hanging.
absl::Duration StopTime(const config::v1::Lifecycle& lifecycle) {
  return absl::Milliseconds(lifecycle.drain_delay_ms()) + absl::Milliseconds(lifecycle.grace_ms());
}

void LogStart(const config::v1::ServerConfig& config, const Server& server, const EngineStatus& status) {
  if (!config.has_tls() && !IsLoopback(config.listen().address())) {
    Log().warn("listening beyond loopback without TLS or authentication: put a proxy in front");
  }
  Log().info(
      "server started: address={} family={} parameters={} model_version={} catalogue_version={} items={} levels={} "
      "device={} dtype={} tls={} reflection={} health={}",
      server.address(), status.family, status.parameters, status.model_version, status.catalogue_version,
      status.num_items, status.levels, config.engine().device(), config.engine().dtype(), TlsKind(config),
      config.reflection(), config.health());
}

void LogStop(const Server& server, int64_t cut) {
  const ServerCounters& counters = server.counters();
  Log().info("server stopped: calls={} malformed={} invalid={} cancelled={} expired={} failed={} cut_off={}",
             counters.calls.value(), counters.malformed.value(), counters.invalid.value(), counters.cancelled.value(),
             counters.expired.value(), counters.failed.value(), cut);
}

// gRPC and protobuf write a line to standard error for what any client can do wrong: a way to fill a disk. What matters
// comes back to us as a status. GRPC_VERBOSITY, where the operator sets it, still rules.
void SilenceLibraries() {
  setenv("GRPC_VERBOSITY", "NONE", 0);
#if GOOGLE_PROTOBUF_VERSION < 4022000
  google::protobuf::SetLogHandler(nullptr);
#endif
}

}  // namespace

absl::Status ServeUntilStopped(const config::v1::Lifecycle& lifecycle, Server& server, Engine& engine,
                               const StopRequests& stop, Watchdog& watchdog) {
  SelfTest self_test;
  bool was_ready = true;
  do {
    const EngineStatus status = engine.GetStatus();
    server.SetServing(status.ready);
    if (status.ready != was_ready) Log().warn("engine {}", status.ready ? "ready" : "not ready: " + status.not_ready);
    was_ready = status.ready;
    if (!status.ready) self_test.Run(engine);
  } while (!stop.WaitFor(1, kReadinessPeriod));
  server.SetServing(false);
  const absl::Duration drain_delay = absl::Milliseconds(lifecycle.drain_delay_ms());
  const absl::Duration grace = absl::Milliseconds(lifecycle.grace_ms());
  Log().info("server stopping: in_flight={} drain_delay_ms={} grace_ms={}", server.in_flight(),
             lifecycle.drain_delay_ms(), lifecycle.grace_ms());
  stop.WaitFor(2, drain_delay);
  watchdog.Arm(grace + kWatchdogMargin);  // again, without what is left of the delay
  server.Refuse();
  const absl::Time deadline = absl::Now() + grace;
  const int64_t cut = AwaitCalls(server, stop, 2, deadline);
  if (cut > 0) watchdog.Arm(kWatchdogMargin);
  server.Shutdown();
  engine.Drain(cut > 0 ? absl::Now() : std::max(deadline, absl::Now()));
  LogStop(server, cut);
  if (cut == 0) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(cut, " calls in flight were cut off ",
                                         stop.count() > 1 ? "by a second signal" : "after lifecycle.grace_ms (",
                                         stop.count() > 1 ? "" : absl::StrCat(lifecycle.grace_ms(), " ms)")));
}

absl::Status RunServer(const config::v1::ServerConfig& config, const EngineFactory& create_engine) {
  signal(SIGPIPE, SIG_IGN);
  BEAMLINE_RETURN_IF_ERROR(EnsureOpenFiles(config.limits().min_open_files()));
  if (!config.core_dumps()) BEAMLINE_RETURN_IF_ERROR(ForbidCoreDumps());
  SilenceLibraries();
  std::atomic<bool> loading{true};
  StopRequests stop;
  AdminPages pages;
  std::atomic<const Server*> running{nullptr};
  std::optional<Watchdog> watchdog;  // its thread starts after the watcher has blocked the signals
  absl::Time hangup_told = absl::InfinitePast();
  SignalWatcher signals([&](int number) {
    if (number == SIGHUP) {
      if (absl::Now() - hangup_told < absl::Seconds(1)) return;
      hangup_told = absl::Now();
      Log().warn(
          "SIGHUP received: nothing to do. Certificates and engine.model_folder are watched, `beamline reload` changes "
          "the model, the configuration needs a restart");
      return;
    }
    Log().info("signal received: signal={}", number);
    // Nothing is served and nothing is being written: there is nothing to wait for.
    if (loading.load()) _exit(kInterruptedExit);
    // First what cannot hang: from here on the process ends, even if the engine answers nobody any more.
    if (stop.count() == 0) watchdog->Arm(StopTime(config.lifecycle()) + kWatchdogMargin);
    stop.Add();
    SetInterrupted(true);  // a bundle being verified is given up
    pages.Draining();      // waits for a page that is being made, and that for the engine
  });
  watchdog.emplace([&] {
    const Server* const server = running.load();
    Log().critical("the server did not stop in time: exiting now; in_flight={}", server ? server->in_flight() : 0);
    Log().flush();
    _exit(1);
  });
  const RealClock clock;
  // Before the model: whoever asks while it loads hears that the process is alive and not ready.
  std::unique_ptr<AdminHttp> http;
  if (config.has_admin()) {
    const config::v1::Admin& admin = config.admin();
    BEAMLINE_ASSIGN_OR_RETURN(
        http, AdminHttp::Start(admin.http_address().empty() ? admin.address() : admin.http_address(), admin.http_port(),
                               pages.Pages()));
  }
  Log().info("loading: bundle={} catalogue={} device={} dtype={}", config.engine().bundle(),
             config.engine().catalogue().empty() ? "the bundle's" : config.engine().catalogue(),
             config.engine().device(), config.engine().dtype());
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, create_engine(EngineOptionsOf(config)));
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server, Server::Start(config, engine.get(), &clock));
  running.store(server.get());
  loading.store(false);
  LogStart(config, *server, engine->GetStatus());
  if (http != nullptr) Log().info("admin: grpc={} http={}", server->admin_address(), http->address());
  pages.Serving(engine.get(), server.get());
  const absl::Status status = ServeUntilStopped(config.lifecycle(), *server, *engine, stop, *watchdog);
  running.store(nullptr);
  pages.Gone();
  return status;
}

}  // namespace beamline::server
