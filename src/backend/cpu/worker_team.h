// SPDX-License-Identifier: Apache-2.0
//
// Fork and join for the ops of several batches at once. The caller works too; helpers are shared by all callers, and a
// caller's share of the cores shrinks with the number of batches that run: one batch on all cores, many batches on one
// core each. A part that its helper has not begun when the caller is through with its own is done by the caller, so
// that a core that is slow to wake up, or busy with another process, costs nothing. A helper that has finished looks
// for more work for some microseconds, then sleeps: the ops of a batch follow each other closely, and spinning longer
// would steal from other processes. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/functional/function_ref.h"

namespace beamline::backend {

class WorkerTeam {
 public:
  // `threads` >= 1 cores in use, callers' included.
  explicit WorkerTeam(int threads);
  ~WorkerTeam();  // REQUIRES: no Run is going on
  WorkerTeam(const WorkerTeam&) = delete;
  WorkerTeam& operator=(const WorkerTeam&) = delete;

  int threads() const { return threads_; }

  // A batch begins and ends.
  void Enter() { batches_.fetch_add(1, std::memory_order_relaxed); }
  void Leave() { batches_.fetch_sub(1, std::memory_order_relaxed); }

  // Cores for the next op of one batch.
  int Share() const;

  // part(i) once for every i in [0, parts), on the caller and on idle helpers; returns when all have returned. Where
  // some throw (out of memory), one of their exceptions is thrown then, and parts that the caller has not begun are
  // left out.
  void Run(int parts, absl::FunctionRef<void(int)> part);

 private:
  struct Helper;
  void Work(Helper& helper);
  void Stop();  // waits for its threads

  const int threads_;
  std::atomic<int> batches_{0};
  std::mutex mu_;
  std::vector<Helper*> idle_;  // guarded by mu_
  std::vector<std::unique_ptr<Helper>> helpers_;
};

}  // namespace beamline::backend
