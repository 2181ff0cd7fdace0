// SPDX-License-Identifier: Apache-2.0
#include "server/lifecycle.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "base/log.h"
#include "base/log_output.h"
#include "base/program.h"
#include "base/thread_role.h"
#include "beamline/status.h"
#include "server/admin_http.h"
#include "server/admin_pages.h"
#include "server/config.h"
#include "server/core_dumps.h"
#include "server/flight_recorder.h"
#include "server/grpc_log.h"
#include "server/listener.h"
#include "server/open_files.h"
#include "server/server.h"
#include "server/server_counters.h"

namespace beamline::server {
namespace {

constexpr absl::Duration kReadinessPeriod = absl::Milliseconds(250);
constexpr absl::Duration kPoll = absl::Milliseconds(5);
constexpr absl::Duration kWatchdogMargin = absl::Seconds(1);
// Callers are told UNAVAILABLE until none came for kQuiet, but no longer than kTold: of what comes after, gRPC cancels
// what it has not begun, and a client that sees CANCELLED takes it for its own doing.
constexpr absl::Duration kQuiet = absl::Milliseconds(100), kTold = absl::Seconds(1);
constexpr absl::Duration kLateCalls = absl::Milliseconds(200);       // see Server::Shutdown
constexpr absl::Duration kReaderPatience = absl::Milliseconds(500);  // of SIGUSR1; within the watchdog's margin
// An engine that nobody asked for so long is asked by us: readiness rests on what happened lately.
constexpr absl::Duration kIdle = absl::Seconds(30);
constexpr absl::Duration kLostExit = absl::Milliseconds(1500);  // with parallel.lost_after_ms below 10 s in all
constexpr int kInterruptedExit = 130;

// Waits for the last call, a stop of rank `stop_count` or the deadline; returns the calls still in flight.
int64_t AwaitCalls(const Server& server, const StopRequests& stop, int stop_count, absl::Time deadline) {
  while (server.in_flight() > 0 && ProcessClock().Now() < deadline) {
    if (stop.WaitFor(stop_count, kPoll)) break;
  }
  return server.in_flight();
}

// In looks, not in time: where this process gets none, neither do callers beside it.
void AwaitQuiet(const Server& server, const StopRequests& stop, absl::Time deadline) {
  const absl::Time now = ProcessClock().Now(), end = std::max(now + kQuiet, std::min(now + kTold, deadline));
  uint64_t calls = server.counters().calls.value();
  for (int64_t quiet = 0; quiet < kQuiet / kPoll && ProcessClock().Now() < end; ++quiet) {
    if (stop.WaitFor(2, kPoll)) return;
    const uint64_t so_far = server.counters().calls.value();
    if (so_far != calls) quiet = -1;
    calls = so_far;
  }
}

// Work for an engine that nobody else sends any: one that is not ready becomes so by success alone, and one that is
// idle would otherwise be ready on old evidence. Of no user: a user's context would be cached, and from then on no test
// would encode.
class SelfTest {
 public:
  static bool Needed(const EngineStatus& status) {
    return !status.ready || status.broken_batches > 0 || ProcessClock().Now() - status.last_success > kIdle;
  }
  void Run(Engine& engine) {
    if (running_->exchange(true)) return;
    RecommendRequest request;
    request.request_id = "self-test";
    request.top_k = 1;
    engine.Submit(std::move(request),
                  [running = running_](const absl::StatusOr<RecommendResult>&) { running->store(false); });
  }

 private:
  const std::shared_ptr<std::atomic<bool>> running_ = std::make_shared<std::atomic<bool>>(false);
};

// An engine with a fault, or one that has not been ready for `limit` (0: for ever), does not mend by itself: a device
// whose every call fails is so until its process ends.
class BrokenEngine {
 public:
  explicit BrokenEngine(absl::Duration limit)
      : limit_(limit > absl::ZeroDuration() ? limit : absl::InfiniteDuration()) {}
  // True: it is broken, and why() says how.
  bool Look(const EngineStatus& status) {
    const absl::Time now = ProcessClock().Now();
    since_ = status.ready ? absl::InfiniteFuture() : std::min(since_, now);
    faulty_ = !status.fault.ok();
    if (!faulty_ && now - since_ < limit_) return false;
    const std::string how =
        faulty_ ? "is broken" : absl::StrCat("has not been ready for ", absl::FormatDuration(limit_));
    const std::string reason = faulty_ ? std::string(status.fault.message()) : status.not_ready;
    why_ =
        absl::InternalError(absl::StrCat("the engine ", how, ": ", reason, "; this process ends, to be started anew"));
    LogEvent(spdlog::level::critical, "engine broken, this process ends",
             {{"why", reason}, {"not_ready_ms", absl::ToInt64Milliseconds(now - since_)}});
    return true;
  }
  const absl::Status& why() const { return why_; }
  // Of calls in flight. With a fault the engine ends them itself, and what it did not end by then hangs.
  absl::Duration Grace(absl::Duration grace) const { return faulty_ ? std::min(grace, kLostExit) : grace; }

 private:
  const absl::Duration limit_;
  absl::Time since_ = absl::InfiniteFuture();  // when it was first seen not ready
  bool faulty_ = false;
  absl::Status why_;
};

const char* TlsKind(const config::v1::ServerConfig& config) {
  return !config.has_tls() ? "off" : config.tls().client_ca().empty() ? "server" : "mutual";
}

// The longest stop there is without anything hanging.
absl::Duration StopTime(const config::v1::Lifecycle& lifecycle) {
  return absl::Milliseconds(lifecycle.drain_delay_ms()) + absl::Milliseconds(lifecycle.grace_ms()) + kQuiet +
         kLateCalls;
}

void LogStart(const config::v1::ServerConfig& config, const Server& server, const EngineStatus& status) {
  if (!config.has_tls() && !IsLoopback(config.listen().address())) {
    LogEvent(spdlog::level::warn, "listening beyond loopback without TLS or authentication: put a proxy in front");
  }
  LogEvent(spdlog::level::info, "server started",
           {{"address", server.address()},
            {"family", status.family},
            {"ranker", status.ranker},
            {"parameters", status.parameters},
            {"model_version", status.model_version},
            {"catalogue_version", status.catalogue_version},
            {"items", status.num_items},
            {"levels", status.levels},
            {"device", status.device},
            {"dtype", status.dtype},
            {"backend", status.backend},
            {"tls", TlsKind(config)},
            {"reflection", config.reflection()},
            {"health", config.health()}});
}

void LogStop(const Server& server, int64_t cut) {
  const ServerCounters& counters = server.counters();
  LogEvent(spdlog::level::info, "server stopped",
           {{"calls", counters.calls.value()},
            {"malformed", counters.malformed.value()},
            {"invalid", counters.invalid.value()},
            {"refused", counters.refused.value()},
            {"cancelled", counters.cancelled.value()},
            {"expired", counters.expired.value()},
            {"stopping", counters.stopping.value()},
            {"failed", counters.failed.value()},
            {"cut_off", cut}});
}

// Unless the program has a logger of that name, see base/log.h.
void RegisterLogger(const config::v1::Log& log) {
  if (spdlog::get("beamline") != nullptr) return;
  const std::string& level = log.level();
  spdlog::register_logger(MakeLogger("beamline", {.json = log.format() == "json",
                                                  .level = level == "debug"     ? spdlog::level::debug
                                                           : level == "warning" ? spdlog::level::warn
                                                           : level == "error"   ? spdlog::level::err
                                                                                : spdlog::level::info}));
}

// protobuf, too, writes a line to standard error for what any client can do wrong.
void SilenceLibraries() {
  TakeGrpcLog();
#if GOOGLE_PROTOBUF_VERSION < 4022000
  google::protobuf::SetLogHandler(nullptr);
#endif
}

// The end of this process after its group was lost: no draining, but time for calls in flight to hear of it.
class GroupLoss {
 public:
  explicit GroupLoss(StopRequests* stop) : stop_(*stop) {}

  // Made once the watcher of signals has blocked them.
  void StartWatchdog() {
    watchdog_.emplace([] {
      LogEvent(spdlog::level::critical, "the process did not end in time after the group was lost: exiting now");
      Log().flush();
      _exit(1);
    });
  }
  std::function<void(const absl::Status&)> Handler() {
    return [this](const absl::Status& status) {
      LogEvent(spdlog::level::critical, "group lost: this process ends", {{"error", LogText(status)}});
      Log().flush();
      watchdog_->Arm(kLostExit);
      {
        const std::lock_guard<std::mutex> lock(mu_);
        status_ = status;
      }
      SetInterrupted(true);  // a bundle being verified is given up
      stop_.Add();
      stop_.Add();  // nothing is waited for
    };
  }
  absl::Status status() const {
    const std::lock_guard<std::mutex> lock(mu_);
    return status_;
  }

 private:
  StopRequests& stop_;
  std::optional<Watchdog> watchdog_;
  mutable std::mutex mu_;
  absl::Status status_;  // guarded by mu_
};

// True: the signal stops nothing, and was told; at most once a second, for whoever sends many.
class Hangup {
 public:
  explicit Hangup(const char* told) : told_(told) {}
  bool Took(int number) {
    if (number != SIGHUP) return false;
    if (ProcessClock().Now() - last_ < absl::Seconds(1)) return true;
    last_ = ProcessClock().Now();
    LogEvent(spdlog::level::warn, "SIGHUP received: nothing to do", {{"hint", told_}});
    return true;
  }

 private:
  const char* const told_;
  absl::Time last_ = absl::InfinitePast();
};

// SIGUSR1: the flight recorder to standard error. On a thread of its own: whoever waits for signals waits for no
// reader, and many that come at once are one.
class RecorderOnDemand {
 public:
  ~RecorderOnDemand() { Forget(); }
  // Made once the watcher of signals has blocked them.
  void Watch(const FlightRecorder* recorder) {
    const std::lock_guard<std::mutex> lock(mu_);
    watching_ = true;
    thread_ = std::thread([this, recorder] { Loop(*recorder); });
  }
  void Forget() {  // waits for what is being written
    {
      const std::lock_guard<std::mutex> lock(mu_);
      watching_ = false;
      changed_.notify_all();
    }
    if (thread_.joinable()) thread_.join();
  }
  bool Took(int number) {
    if (number != SIGUSR1) return false;
    const std::lock_guard<std::mutex> lock(mu_);
    asked_ = watching_;
    changed_.notify_all();
    return true;
  }

 private:
  void Loop(const FlightRecorder& recorder) {
    std::unique_lock<std::mutex> lock(mu_);
    while (true) {
      changed_.wait(lock, [this] { return asked_ || !watching_; });
      if (!watching_) return;
      asked_ = false;
      lock.unlock();
      const size_t left_out = recorder.WriteTo(STDERR_FILENO, kReaderPatience);
      if (left_out > 0) LogEvent(spdlog::level::warn, "flight records left out, nobody reads", {{"count", left_out}});
      lock.lock();
    }
  }

  std::mutex mu_;
  std::condition_variable changed_;
  bool watching_ = false, asked_ = false;  // guarded by mu_
  std::thread thread_;
};

// A standard stream that was closed before us is nobody's: our first socket would get its number, and every line of the
// log.
void HoldStandardStreams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(stream, F_GETFD) >= 0) continue;
    const int nothing = open("/dev/null", O_RDWR);
    if (nothing == stream || nothing < 0) continue;
    dup2(nothing, stream);
    close(nothing);
  }
}

void PrepareProcess(const config::v1::Log& log) {
  HoldStandardStreams();
  signal(SIGPIPE, SIG_IGN);
  signal(SIGUSR2, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // what cannot be written is an error of the write, and no reason to end
  RegisterLogger(log);
  SilenceLibraries();
}

}  // namespace

absl::Status ServeUntilStopped(const config::v1::Lifecycle& lifecycle, Server& server, Engine& engine,
                               const Stopping& stopping) {
  const auto& [stop, watchdog] = stopping;
  SelfTest self_test;
  BrokenEngine broken(absl::Milliseconds(lifecycle.broken_exit_ms()));
  bool was_ready = true;
  do {
    const EngineStatus status = engine.GetStatus();
    if (broken.Look(status)) break;
    server.SetServing(status.ready);
    if (status.ready && !was_ready) LogEvent(spdlog::level::warn, "engine ready");
    if (!status.ready && was_ready) LogEvent(spdlog::level::warn, "engine not ready", {{"why", status.not_ready}});
    was_ready = status.ready;
    if (SelfTest::Needed(status)) self_test.Run(engine);
  } while (!stop.WaitFor(1, kReadinessPeriod));
  server.Leave();
  const absl::Duration drain_delay = absl::Milliseconds(lifecycle.drain_delay_ms());
  const absl::Duration grace = broken.Grace(absl::Milliseconds(lifecycle.grace_ms()));
  LogEvent(spdlog::level::info, "server stopping",
           {{"in_flight", server.in_flight()},
            {"drain_delay_ms", lifecycle.drain_delay_ms()},
            {"grace_ms", absl::ToInt64Milliseconds(grace)}});
  if (broken.why().ok()) stop.WaitFor(2, drain_delay);  // else it takes no traffic since long
  watchdog.Arm(grace + kWatchdogMargin);                // again, without what is left of the delay
  server.Refuse();
  const absl::Time deadline = ProcessClock().Now() + grace;
  const int64_t cut = AwaitCalls(server, stop, 2, deadline);
  if (cut > 0) {
    watchdog.Arm(kWatchdogMargin);
    engine.Drain(ProcessClock().Now());  // tells their callers UNAVAILABLE; gRPC would say that they cancelled
  } else {
    AwaitQuiet(server, stop, deadline);
  }
  server.Shutdown(kLateCalls);
  engine.Drain(std::max(deadline, ProcessClock().Now()));
  LogStop(server, cut);
  if (!broken.why().ok()) return broken.why();
  if (cut == 0) return absl::OkStatus();
  return absl::AbortedError(absl::StrCat(cut, " calls in flight were cut off ",
                                         stop.count() > 1 ? "by a second signal" : "after lifecycle.grace_ms (",
                                         stop.count() > 1 ? "" : absl::StrCat(lifecycle.grace_ms(), " ms)")));
}

namespace {

absl::Status Follow(const config::v1::ServerConfig& config, const FollowerMain& follow) {
  if (!config.core_dumps()) BEAMLINE_RETURN_IF_ERROR(ForbidCoreDumps());
  StopRequests stop;
  GroupLoss loss(&stop);
  std::atomic<bool> ready{false};
  std::optional<Watchdog> watchdog;
  Hangup hangup("The configuration needs a restart of the whole group");
  SignalWatcher signals([&](int number) {
    if (hangup.Took(number) || number == SIGUSR1) return;
    const bool first = stop.count() == 0;
    if (!stop.NoteSignal(ProcessClock().Now())) return;
    LogEvent(spdlog::level::info, "signal received",
             {{"signal", number}, {"hint", "rank 0 ends the group, a second signal ends this rank"}});
    stop.Add();
    if (!first || !ready) _exit(kInterruptedExit);
    watchdog->Arm(StopTime(config.lifecycle()) + 2 * kWatchdogMargin);
  });
  watchdog.emplace([&] {
    LogEvent(spdlog::level::critical, "rank 0 did not end the group in time: exiting now");
    Log().flush();
    _exit(1);
  });
  loss.StartWatchdog();
  ready = true;
  EngineOptions options = EngineOptionsOf(config);
  options.parallel.on_lost = loss.Handler();
  const absl::Status status = follow(options);
  if (status.ok()) LogEvent(spdlog::level::info, "ended with its group", {{"rank", config.parallel().rank()}});
  return status;
}

absl::Status Serve(const config::v1::ServerConfig& config, const EngineFactory& create_engine) {
  TakeRole(ThreadRole::kAnswers);  // before gRPC starts the threads that inherit it
  BEAMLINE_RETURN_IF_ERROR(EnsureOpenFiles(config.limits().min_open_files()));
  if (!config.core_dumps()) BEAMLINE_RETURN_IF_ERROR(ForbidCoreDumps());
  std::atomic<bool> loading{true};
  StopRequests stop;
  GroupLoss loss(&stop);
  AdminPages pages({.live_requests = config.admin().live_requests()});
  std::atomic<const Server*> running{nullptr};
  std::optional<Watchdog> watchdog;  // its thread starts after the watcher has blocked the signals
  Hangup hangup(
      "Certificates and engine.model_folder are watched, `beamline reload` changes the model, the configuration needs "
      "a restart");
  RecorderOnDemand recorder;
  SignalWatcher signals([&](int number) {
    if (hangup.Took(number) || recorder.Took(number)) return;
    const bool was_loading = loading.load();  // then there may be no watchdog yet
    // First what cannot hang: from here on the process ends, even if the engine answers nobody any more.
    if (!was_loading && stop.count() == 0) watchdog->Arm(StopTime(config.lifecycle()) + kWatchdogMargin);
    if (!stop.NoteSignal(ProcessClock().Now())) return;
    LogEvent(spdlog::level::info, "signal received", {{"signal", number}});
    if (was_loading) {  // nothing is served and nothing is being written: there is nothing to wait for
      LogEvent(spdlog::level::info, "stopped while loading");
      Log().flush();
      _exit(kInterruptedExit);
    }
    SetInterrupted(true);  // a bundle being verified is given up
    pages.Draining();
    stop.Add();
  });
  watchdog.emplace([&] {
    const Server* const server = running.load();
    LogEvent(spdlog::level::critical, "the server did not stop in time: exiting now",
             {{"in_flight", server ? server->in_flight() : 0}});
    Log().flush();
    _exit(1);
  });
  loss.StartWatchdog();
  // Before the model: a port that another process has is no reason to load it, and whoever asks while it loads hears
  // that this process is alive and not ready.
  BEAMLINE_ASSIGN_OR_RETURN(Listeners listeners, Server::ClaimPorts(config));
  std::unique_ptr<AdminHttp> http;
  if (config.has_admin()) {
    const config::v1::Admin& admin = config.admin();
    BEAMLINE_ASSIGN_OR_RETURN(
        http, AdminHttp::Start(admin.http_address().empty() ? admin.address() : admin.http_address(), admin.http_port(),
                               pages.Pages(), pages.Posts()));
  }
  LogEvent(spdlog::level::info, "loading",
           {{"version", ProgramVersion()},
            {"commit", ProgramCommit()},
            {"bundle", config.engine().bundle()},
            {"model_folder", config.engine().model_folder()},
            {"catalogue", config.engine().catalogue().empty() ? "the bundle's" : config.engine().catalogue()},
            {"device", config.engine().device()},
            {"dtype", config.engine().dtype()}});
  EngineOptions options = EngineOptionsOf(config);
  options.parallel.on_lost = loss.Handler();
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<Engine> engine, create_engine(options));
  BEAMLINE_ASSIGN_OR_RETURN(const std::unique_ptr<Server> server,
                            Server::Start(config, std::move(listeners), engine.get(), &ProcessClock()));
  running.store(server.get());
  loading.store(false);
  const CrashDump crash_dump(&server->recorder(), STDERR_FILENO);
  recorder.Watch(&server->recorder());
  pages.Serving(engine.get(), server.get());
  // Last: whoever waits for these lines may ask for all of the above.
  LogStart(config, *server, engine->GetStatus());
  if (http != nullptr) {
    LogEvent(spdlog::level::info, "admin", {{"grpc", server->admin_address()}, {"http", http->address()}});
  }
  const absl::Status status = ServeUntilStopped(config.lifecycle(), *server, *engine, {stop, *watchdog});
  running.store(nullptr);
  recorder.Forget();
  pages.Gone();
  return loss.status().ok() ? status : loss.status();
}

}  // namespace

absl::Status Told(absl::Status status, const config::v1::Log& log) {
  if (!status.ok() && log.format() == "json") {
    RegisterLogger(log);
    LogEvent(spdlog::level::critical, "server failed", {{"error", LogText(status)}});
    status.SetPayload(kLoggedPayload, absl::Cord());
  }
  return status;
}

absl::Status RunServer(const config::v1::ServerConfig& config, const EngineFactory& create_engine) {
  PrepareProcess(config.log());
  return Told(Serve(config, create_engine), config.log());
}

absl::Status RunFollower(const config::v1::ServerConfig& config, const FollowerMain& follow) {
  PrepareProcess(config.log());
  return Told(Follow(config, follow), config.log());
}

}  // namespace beamline::server
