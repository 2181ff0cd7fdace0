// SPDX-License-Identifier: Apache-2.0
#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <utility>

#include "base/cgroup.h"
#include "base/thread_role.h"

namespace beamline {

ThreadPool::ThreadPool(int threads) {
  threads_.reserve(std::max(threads, 0));
  try {
    for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Loop(); });
  } catch (...) {  // those that run would end the process as they are destroyed
    Stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { Stop(); }

void ThreadPool::Stop() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Schedule(absl::AnyInvocable<void()> work) {
  if (threads_.empty()) {
    work();
    return;
  }
  {
    std::lock_guard lock(mu_);
    queue_.push_back(std::move(work));
  }
  wake_.notify_one();
}

void ThreadPool::Loop() {
  TakeRole(ThreadRole::kComputes);
  std::unique_lock lock(mu_);
  while (true) {
    wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
    if (queue_.empty()) return;
    absl::AnyInvocable<void()> work = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    work();
    work = nullptr;  // what it captured dies outside the lock
    lock.lock();
  }
}

int ThreadsOrCores(int requested) {
  if (requested > 0) return requested;
  return UsableCores();
}

namespace {

// Shared with helpers that may start after the loop has ended; `fn` is touched only while a range is left, and the
// caller does not return before every range is done.
struct RangeLoop {
  RangeLoop(int64_t n, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> fn)
      : n(n), grain(grain), ranges((n - 1) / grain + 1), fn(fn) {}

  const int64_t n, grain, ranges;
  const absl::FunctionRef<void(int64_t, int64_t)> fn;
  std::atomic<int64_t> next{0};  // relaxed: hands out indices, orders nothing
  std::mutex mu;
  std::condition_variable all_done;
  int64_t done = 0;  // ranges; guarded by mu, which also publishes what they wrote

  void Work() {
    int64_t finished = 0;
    for (int64_t range; (range = next.fetch_add(1, std::memory_order_relaxed)) < ranges; ++finished) {
      fn(range * grain, std::min(n, (range + 1) * grain));
    }
    if (finished == 0) return;
    std::lock_guard lock(mu);
    done += finished;
    if (done == ranges) all_done.notify_all();
  }
};

}  // namespace

void ParallelFor(ThreadPool* pool, int64_t n, int64_t grain, absl::FunctionRef<void(int64_t, int64_t)> fn) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t helpers = pool == nullptr ? 0 : std::min<int64_t>(pool->threads(), (n - 1) / grain);
  if (helpers == 0) {
    for (int64_t begin = 0; begin < n; begin += grain) fn(begin, std::min(n, begin + grain));
    return;
  }
  auto loop = std::make_shared<RangeLoop>(n, grain, fn);
  for (int64_t i = 0; i < helpers; ++i) pool->Schedule([loop] { loop->Work(); });
  loop->Work();
  std::unique_lock lock(loop->mu);
  loop->all_done.wait(lock, [&] { return loop->done == loop->ranges; });
}

}  // namespace beamline
