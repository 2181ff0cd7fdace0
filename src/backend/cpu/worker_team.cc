// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/worker_team.h"

#include <algorithm>
#include <array>
#include <exception>
#include <thread>
#include <utility>

namespace beamline::backend {
namespace {

constexpr int kSpins = 1500;  // some 30 microseconds
constexpr int kMaxHelpers = 255;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Until `value` is no longer `old`.
void Await(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    Pause();
  }
  value.wait(old, std::memory_order_acquire);
}

template <typename F>
std::exception_ptr Catching(F&& f) {
  try {
    f();
    return nullptr;
  } catch (...) {
    return std::current_exception();
  }
}

}  // namespace

struct WorkerTeam::Helper {
  std::atomic<uint32_t> started{0};                    // runs asked for
  std::atomic<uint32_t> finished{0};                   // runs done
  const absl::FunctionRef<void(int)>* part = nullptr;  // null: stop
  int index = 0;
  std::exception_ptr error;  // of the last run
  std::thread thread;
};

WorkerTeam::WorkerTeam(int threads) : threads_(std::clamp(threads, 1, kMaxHelpers + 1)) {
  for (int i = 1; i < threads_; ++i) {
    helpers_.push_back(std::make_unique<Helper>());
    idle_.push_back(helpers_.back().get());
    helpers_.back()->thread = std::thread([this, helper = helpers_.back().get()] { Work(*helper); });
  }
}

WorkerTeam::~WorkerTeam() {
  for (const auto& helper : helpers_) {
    helper->part = nullptr;
    helper->started.fetch_add(1, std::memory_order_release);
    helper->started.notify_one();
    helper->thread.join();
  }
}

int WorkerTeam::Share() const { return std::max(1, threads_ / std::max(1, batches_.load(std::memory_order_relaxed))); }

void WorkerTeam::Work(Helper& helper) {
  for (uint32_t seen = 0;; ++seen) {
    Await(helper.started, seen);
    if (helper.part == nullptr) return;
    helper.error = Catching([&] { (*helper.part)(helper.index); });
    helper.finished.fetch_add(1, std::memory_order_release);
    helper.finished.notify_one();
  }
}

void WorkerTeam::Run(int parts, absl::FunctionRef<void(int)> part) {
  if (parts == 1) return part(0);
  std::array<Helper*, kMaxHelpers> helpers;
  int count = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (; count < std::min(parts - 1, kMaxHelpers) && !idle_.empty(); ++count) {
      helpers[count] = idle_.back();
      idle_.pop_back();
    }
  }
  for (int i = 0; i < count; ++i) {
    helpers[i]->part = &part;
    helpers[i]->index = i;
    helpers[i]->started.fetch_add(1, std::memory_order_release);
    helpers[i]->started.notify_one();
  }
  // Whatever happens, helpers are waited for: they use `part`, which lives in the caller's frame.
  std::exception_ptr error = Catching([&] {
    for (int i = count; i < parts; ++i) part(i);
  });
  for (int i = 0; i < count; ++i) {
    Await(helpers[i]->finished, helpers[i]->started.load(std::memory_order_relaxed) - 1);
    if (helpers[i]->error != nullptr) error = std::exchange(helpers[i]->error, nullptr);
  }
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.insert(idle_.end(), helpers.begin(), helpers.begin() + count);
  }
  if (error != nullptr) std::rethrow_exception(error);
}

}  // namespace beamline::backend
