// SPDX-License-Identifier: Apache-2.0
#include "base/interrupt.h"

#include <atomic>
#include <csignal>
#include <cstdint>
#include <ctime>

namespace beamline {
namespace {

// Signal handlers can only reach static storage; lock-free atomics are safe inside one.
std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);

// `timeout` signals a process and then its group: the same wish, twice within microseconds.
constexpr int64_t kOneWishMs = 500;

std::atomic<int64_t> first_ms{0};
static_assert(std::atomic<int64_t>::is_always_lock_free);

void OnSignal(int signal) {
  timespec now = {};
  clock_gettime(CLOCK_MONOTONIC, &now);
  const int64_t now_ms = int64_t{now.tv_sec} * 1000 + now.tv_nsec / 1'000'000 + 1;
  int64_t first = 0;
  if (first_ms.compare_exchange_strong(first, now_ms) || now_ms - first < kOneWishMs) {
    interrupted.store(true, std::memory_order_relaxed);
    return;
  }
  std::signal(signal, SIG_DFL);  // a second wish has the default effect
  raise(signal);
}

}  // namespace

void InstallInterruptHandler() {
  struct sigaction action = {};
  action.sa_handler = OnSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  struct sigaction hang_up = {};
  sigaction(SIGHUP, nullptr, &hang_up);
  if (hang_up.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);
}

bool Interrupted() { return interrupted.load(std::memory_order_relaxed); }

absl::Status CheckInterrupted() { return Interrupted() ? absl::CancelledError("interrupted") : absl::OkStatus(); }

void SetInterrupted(bool value) {
  interrupted.store(value, std::memory_order_relaxed);
  if (!value) first_ms.store(0);
}

}  // namespace beamline
