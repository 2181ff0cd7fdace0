// SPDX-License-Identifier: Apache-2.0
#include "backend/cpu/worker_team.h"

#include <algorithm>
#include <array>
#include <exception>
#include <thread>
#include <utility>

#include "base/thread_role.h"

namespace beamline::backend {
namespace {

constexpr int kSpins = 1500;  // some 30 microseconds
constexpr int kMaxHelpers = 255;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// Until `value` is one that is `wanted`; returns it.
template <typename T, typename Predicate>
T Await(const std::atomic<T>& value, Predicate wanted) {
  T now = value.load(std::memory_order_acquire);
  for (int i = 0; i < kSpins && !wanted(now); ++i) {
    Pause();
    now = value.load(std::memory_order_acquire);
  }
  for (; !wanted(now); now = value.load(std::memory_order_acquire)) value.wait(now, std::memory_order_acquire);
  return now;
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
  // kIdle -> kAsked by the caller; kAsked -> kRunning -> kDone by the helper, or kAsked -> kIdle by a caller that came
  // round to do it itself; kDone -> kIdle by the caller.
  enum class State : uint32_t { kIdle, kAsked, kRunning, kDone, kStop };
  std::atomic<State> state{State::kIdle};
  const absl::FunctionRef<void(int)>* part = nullptr;
  int index = 0;
  std::exception_ptr error;  // of the last run
  std::thread thread;

  void Set(State to) {
    state.store(to, std::memory_order_release);
    state.notify_one();
  }
  bool Change(State from, State to) { return state.compare_exchange_strong(from, to, std::memory_order_acq_rel); }
};

WorkerTeam::WorkerTeam(int threads) : threads_(std::clamp(threads, 1, kMaxHelpers + 1)) {
  try {
    for (int i = 1; i < threads_; ++i) {
      helpers_.push_back(std::make_unique<Helper>());
      idle_.push_back(helpers_.back().get());
      helpers_.back()->thread = std::thread([this, helper = helpers_.back().get()] { Work(*helper); });
    }
  } catch (...) {  // a thread could not be had: those that run would end the process as they are destroyed
    Stop();
    throw;
  }
}

WorkerTeam::~WorkerTeam() { Stop(); }

void WorkerTeam::Stop() {
  for (const auto& helper : helpers_) {
    helper->Set(Helper::State::kStop);
    if (helper->thread.joinable()) helper->thread.join();
  }
}

int WorkerTeam::Share() const { return std::max(1, threads_ / std::max(1, batches_.load(std::memory_order_relaxed))); }

void WorkerTeam::Work(Helper& helper) {
  TakeRole(ThreadRole::kComputes);
  using State = Helper::State;
  for (;;) {
    const State now = Await(helper.state, [](State state) { return state == State::kAsked || state == State::kStop; });
    if (now == State::kStop) return;
    if (!helper.Change(State::kAsked, State::kRunning)) continue;  // too late
    helper.error = Catching([&] { (*helper.part)(helper.index); });
    helper.Set(State::kDone);
  }
}

void WorkerTeam::Run(int parts, absl::FunctionRef<void(int)> part) {
  if (parts == 1) return part(0);
  std::array<Helper*, kMaxHelpers> helpers;
  int count = 0;
  {
    const std::lock_guard<std::mutex> lock(mu_);
    for (; count < std::min(parts - 1, kMaxHelpers) && !idle_.empty(); ++count) {
      helpers[count] = idle_.back();
      idle_.pop_back();
    }
  }
  using State = Helper::State;
  for (int i = 0; i < count; ++i) {
    helpers[i]->part = &part;
    helpers[i]->index = i;
    helpers[i]->Set(State::kAsked);
  }
  // Whatever happens, helpers are waited for: they use `part`, which lives in the caller's frame.
  std::exception_ptr error = Catching([&] {
    for (int i = count; i < parts; ++i) part(i);
  });
  for (int i = 0; i < count; ++i) {
    Helper& helper = *helpers[i];
    // A helper that has not woken up by now is not worth waiting for.
    if (helper.Change(State::kAsked, State::kIdle)) {
      if (error == nullptr) error = Catching([&] { part(i); });
      continue;
    }
    Await(helper.state, [](State state) { return state == State::kDone; });
    if (helper.error != nullptr) error = std::exchange(helper.error, nullptr);
    helper.state.store(State::kIdle, std::memory_order_relaxed);
  }
  {
    const std::lock_guard<std::mutex> lock(mu_);
    idle_.insert(idle_.end(), helpers.begin(), helpers.begin() + count);
  }
  if (error != nullptr) std::rethrow_exception(error);
}

}  // namespace beamline::backend
