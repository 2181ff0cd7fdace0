// SPDX-License-Identifier: Apache-2.0
//
// An epoch's batches in order, built ahead of their use on threads of its own. One thread takes them.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <future>

#include "base/thread_pool.h"
#include "train/examples.h"

namespace beamline::train {

class BatchesAhead {
 public:
  // Batches [begin, end) of `build`, which is called on `threads` threads at once, or on the caller's as batches are
  // taken where that is 0.
  BatchesAhead(std::function<ExampleBatch(int64_t batch)> build, int64_t begin, int64_t end, int threads);

  // The next one; throws what `build` threw. REQUIRES: fewer than end - begin calls so far.
  ExampleBatch Next();

 private:
  const std::function<ExampleBatch(int64_t)> build_;
  const int64_t end_;
  int64_t scheduled_;                             // batches before it were handed to the pool
  std::deque<std::future<ExampleBatch>> coming_;  // in order
  ThreadPool pool_;                               // last: it ends first
};

}  // namespace beamline::train
