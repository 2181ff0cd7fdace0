// SPDX-License-Identifier: Apache-2.0
//
// A fixed set of threads for CPU-bound work, and a parallel loop over it. A pool of 0 threads runs everything inline in
// the caller, in order: that is how tests make threaded code deterministic. Work must not throw. Thread-safe; the owner
// destroys the pool after every user of it, and the destructor runs what was scheduled before it returns.
//
// std::mutex, not absl::Mutex, here and wherever ThreadSanitizer looks: it cannot see into the system's absl library.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/functional/function_ref.h"

namespace beamline {

class ThreadPool {
 public:
  // REQUIRES: threads >= 0. Throws std::system_error where a thread cannot be had; none is left then.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(threads_.size()); }

  // Runs `work` on some thread, in the order of scheduling where there is one thread; inline where there is none.
  void Schedule(absl::AnyInvocable<void()> work);

 private:
  void Loop();
  void Stop();

  std::mutex mu_;
  std::condition_variable wake_;
  std::deque<absl::AnyInvocable<void()>> queue_;  // guarded by mu_
  bool stopping_ = false;                         // guarded by mu_
  std::vector<std::thread> threads_;
};

// The most threads a user may ask for: what option parsers refuse above.
inline constexpr int kMaxThreads = 1024;

// Threads to use where the user said `requested`; 0 means one per core that the process may use (base/cgroup.h).
int ThreadsOrCores(int requested);

// Calls fn(begin, end) on disjoint ranges of at most `grain` indices that cover [0, n), and returns when all are done;
// what they wrote is then visible to the caller. The caller works too, so nested loops cannot deadlock. A null pool
// runs inline. Ranges are [k * grain, (k + 1) * grain) for every pool size, so results reduced per range, in range
// order, do not depend on the number of threads.
void ParallelFor(ThreadPool* pool, int64_t n, int64_t grain, absl::FunctionRef<void(int64_t begin, int64_t end)> fn);

}  // namespace beamline
