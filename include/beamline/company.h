// SPDX-License-Identifier: Apache-2.0
//
// Requests that are submitted at once to one engine, so that they may share batches: where it has nothing else to do it
// lets those that it has wait for the others, at most EngineOptions::max_queue_delay. One object for all of them
// (RecommendRequest::company), made for as many as will be submitted; in what order they come to the queue, and which
// of them never do, does not matter. Thread-safe.
#pragma once

#include <atomic>

namespace beamline {

class Company {
 public:
  explicit Company(int requests) : awaited_(requests) {}

  // The engine's: one more was queued, or never will be; true: it was the last. Relaxed: it carries no data with it.
  bool Meet() { return awaited_.fetch_sub(1, std::memory_order_relaxed) == 1; }
  bool awaits_more() const { return awaited_.load(std::memory_order_relaxed) > 0; }

 private:
  std::atomic<int> awaited_;
};

}  // namespace beamline
