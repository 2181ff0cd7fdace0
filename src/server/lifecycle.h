// SPDX-License-Identifier: Apache-2.0
//
// From "the engine is wanted" to "the process may exit": loading, serving, draining. On the first SIGTERM or SIGINT
// health says NOT_SERVING; after the drain delay new calls are refused; calls in flight get the grace time; then,
// when nobody has called for a tenth of a second (at most a second, of the grace time but for that tenth), the server
// and the engine stop.
// A second signal skips what is left of both times, unless it comes within kOneWish of the first. A watchdog, armed by
// the first signal itself, ends the process one second after both times in case anything hangs. A signal while the
// engine still loads ends the process at once. SIGHUP stops nothing: whoever means "read your files again" by it is
// told in the log that they are watched. SIGUSR1 writes the flight recorder to standard error, SIGUSR2 does nothing.
// The admin pages are there from before the engine loads until the end. Where several ranks hold the model, the loss of
// one ends this process too: at once, with an error, and within kLostExit though all hang.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "beamline/config/v1/server_config.pb.h"
#include "beamline/engine.h"

namespace beamline::server {

class Server;

// timeout(1), shells and supervisors signal a process and then its group: what comes so soon is the same wish again.
inline constexpr absl::Duration kOneWish = absl::Milliseconds(500);

// How often the stop was asked for. Thread-safe.
class StopRequests {
 public:
  // Others stop at once: log the reason first.
  void Add();
  // Notes a signal that comes `now`. True: a wish of its own, to be added; false: that of the one before it.
  bool NoteSignal(absl::Time now);
  int count() const;
  // True once the count has reached `count`; false when `timeout` is over first.
  bool WaitFor(int count, absl::Duration timeout) const;

 private:
  mutable std::mutex mu_;
  mutable std::condition_variable changed_;
  int count_ = 0;                                  // guarded by mu_
  absl::Time last_signal_ = absl::InfinitePast();  // guarded by mu_
};

// SIGTERM, SIGINT, SIGHUP and SIGUSR1, taken by a thread of its own: everything may be done in `on_signal`. Blocks them
// in the calling thread, hence in all threads it starts later: make it before them. One per process.
class SignalWatcher {
 public:
  explicit SignalWatcher(std::function<void(int signal_number)> on_signal);
  ~SignalWatcher();  // the signals stay blocked

 private:
  void Loop();

  std::function<void(int)> on_signal_;
  std::mutex mu_;
  bool stopping_ = false;  // guarded by mu_
  std::thread thread_;
};

// Calls `on_timeout` unless it is destroyed first. Arm starts the time, or starts it again. Thread-safe.
class Watchdog {
 public:
  explicit Watchdog(std::function<void()> on_timeout);
  ~Watchdog();
  void Arm(absl::Duration timeout);

 private:
  void Loop();

  std::function<void()> on_timeout_;
  std::mutex mu_;
  std::condition_variable changed_;
  absl::Time expiry_ = absl::InfiniteFuture();  // guarded by mu_
  bool stopping_ = false;                       // guarded by mu_
  std::thread thread_;
};

struct Stopping {
  const StopRequests& requests;
  Watchdog& watchdog;
};

// Serves until it is asked to stop, then drains, shuts the server and drains the engine. Health follows the engine's
// readiness. ABORTED when the grace time or a second stop cut calls off; the message says how many. INTERNAL when the
// engine was not ready for lifecycle.broken_exit_ms, which stops it too; with a fault (EngineStatus) it is stopped at
// once, and calls in flight, which the engine ends, are given kLostExit at most.
absl::Status ServeUntilStopped(const config::v1::Lifecycle& lifecycle, Server& server, Engine& engine,
                               const Stopping& stopping);

// All of `beamline serve` behind the configuration: signals, engine, server, log. Returns when the process should exit.
using EngineFactory = std::function<absl::StatusOr<std::unique_ptr<Engine>>(const EngineOptions&)>;
absl::Status RunServer(const config::v1::ServerConfig& config, const EngineFactory& create_engine);

// A start that fails is printed by the program as a line of text; where the log is of objects (log { format: "json" })
// it is told as one instead. The functions above and below tell it themselves. Returns `status`, with a note of that.
absl::Status Told(absl::Status status, const config::v1::Log& log);

// All of `beamline serve` for a rank that follows rank 0 (parallel.rank > 0): it serves nobody itself. `follow` returns
// when the group has ended. A first signal is left to rank 0, which gets its own and ends the group in order, for as
// long as that may take there; a second one ends the process at once, and with it the group.
using FollowerMain = std::function<absl::Status(const EngineOptions&)>;
absl::Status RunFollower(const config::v1::ServerConfig& config, const FollowerMain& follow);

}  // namespace beamline::server
