// SPDX-License-Identifier: Apache-2.0
//
// Requests between their acceptance and the scheduler's queue. A history store may hang and a rule may take its time to
// compile; neither holds a request beyond its deadline, its caller's patience or a drain: a thread watches, and ends it
// while the work goes on for nobody. Stores are asked on threads of their own, so that a slow one holds up only those
// who ask it. Work that nobody waits for any more still counts against the capacity of its place: a store that hangs
// for good fills no memory with requests (each of them holds the model version that it came to), and refuses nobody who
// does not ask it. Thread-safe.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "base/clock.h"
#include "base/thread_pool.h"
#include "engine/call.h"

namespace beamline::engine {

// What a canceller keeps of the preparation, for it may outlive it.
class PreparationWake {
 public:
  void Now();

 private:
  friend class Preparation;
  std::mutex mu_;
  std::condition_variable changed_;           // the watch
  bool look_ = false;                         // guarded by mu_, as all below
  bool joining_ = false;                      // the watch returns
  absl::Time next_ = absl::InfiniteFuture();  // when it looks by itself
};

class Preparation {
 public:
  struct Options {
    int threads = 2;  // 0: everything inside of Run, nothing is watched
    int store_threads = 8;
    int64_t capacity = 1024;     // calls in each place
    absl::Duration retry_after;  // of a refusal
  };
  struct Hooks {
    // Brings the call to the scheduler or to its end; may take its time.
    std::function<void(const CallPtr&)> prepare;
    // Runs the call's callback; false: it has ended before. Called under no lock.
    std::function<bool(const CallPtr&, absl::Status)> end;
  };
  // Where a call is prepared: in Run, or on a thread.
  enum class Place { kHere, kThread, kStoreThread };

  // The clock outlives the object.
  Preparation(const Options& options, Hooks hooks, const Clock* clock);
  // Waits for its threads. REQUIRES: drained.
  ~Preparation();

  // OK: the call is being prepared from now on, and Run must follow. UNAVAILABLE: draining; RESOURCE_EXHAUSTED: full.
  absl::Status Enter(const CallPtr& call, Place place);
  void Run(const CallPtr& call, Place place);

  // Refuses from now on and waits for the calls being prepared, at most until `deadline`; those left then end with
  // UNAVAILABLE. False: there were some. Returns after their callbacks, though threads may still work on them.
  bool Drain(absl::Time deadline);

  bool draining() const;
  int64_t size() const;  // calls being prepared

 private:
  void Prepare(const CallPtr& call, Place place);
  void WatchLoop();
  // Ends the calls that are past their deadline or cancelled and not with the scheduler; returns the next deadline.
  absl::Time EndUnwanted();
  void Forget(const std::vector<CallPtr>& ended);

  const Options options_;
  const Hooks hooks_;
  const Clock* const clock_;
  const std::shared_ptr<PreparationWake> wake_ = std::make_shared<PreparationWake>();

  mutable std::mutex mu_;
  std::condition_variable left_;
  absl::flat_hash_set<CallPtr> calls_;   // guarded by mu_, as all below: their callbacks have not returned
  std::array<int64_t, 3> working_ = {};  // by place: entered, and not done with; at least those of calls_
  int64_t ending_ = 0;                   // threads that took some of calls_ to end them, and may be in a callback
  bool draining_ = false;

  std::thread watch_;
  ThreadPool threads_, store_threads_;  // last: their work uses all of the above
};

}  // namespace beamline::engine
