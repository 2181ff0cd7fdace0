// SPDX-License-Identifier: Apache-2.0
#include <utility>

#include <signal.h>

#include "base/clock.h"
#include "server/lifecycle.h"

namespace beamline::server {
namespace {

sigset_t WatchedSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  sigaddset(&set, SIGUSR1);
  return set;
}

}  // namespace

void StopRequests::Add() {
  std::lock_guard lock(mu_);
  ++count_;
  changed_.notify_all();
}

bool StopRequests::NoteSignal(absl::Time now) {
  std::lock_guard lock(mu_);
  if (now - last_signal_ < kOneWish) return false;
  last_signal_ = now;
  return true;
}

int StopRequests::count() const {
  std::lock_guard lock(mu_);
  return count_;
}

bool StopRequests::WaitFor(int count, absl::Duration timeout) const {
  std::unique_lock lock(mu_);
  return changed_.wait_for(lock, absl::ToChronoNanoseconds(timeout), [&] { return count_ >= count; });
}

SignalWatcher::SignalWatcher(std::function<void(int)> on_signal) : on_signal_(std::move(on_signal)) {
  const sigset_t set = WatchedSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this] { Loop(); });
}

SignalWatcher::~SignalWatcher() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
  }
  // To that thread alone, which waits for it: wakes it to see the flag.
  pthread_kill(thread_.native_handle(), SIGTERM);  // NOLINT(bugprone-bad-signal-to-kill-thread): the signal is blocked
  thread_.join();
}

void SignalWatcher::Loop() {
  const sigset_t set = WatchedSignals();
  for (;;) {
    int signal_number = 0;
    if (sigwait(&set, &signal_number) != 0) continue;
    {
      std::lock_guard lock(mu_);
      if (stopping_) return;
    }
    on_signal_(signal_number);
  }
}

Watchdog::Watchdog(std::function<void()> on_timeout) : on_timeout_(std::move(on_timeout)) {
  thread_ = std::thread([this] { Loop(); });
}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mu_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void Watchdog::Arm(absl::Duration timeout) {
  std::lock_guard lock(mu_);
  expiry_ = ProcessClock().Now() + timeout;
  changed_.notify_all();
}

void Watchdog::Loop() {
  std::unique_lock lock(mu_);
  while (!stopping_) {
    const absl::Duration left = expiry_ - ProcessClock().Now();
    if (left <= absl::ZeroDuration()) {
      expiry_ = absl::InfiniteFuture();
      lock.unlock();
      on_timeout_();
      lock.lock();
    } else {
      // Bounded: the condition's own clock may be the system's, and that is stepped.
      changed_.wait_for(lock, absl::ToChronoNanoseconds(std::min(left, absl::Seconds(1))));
    }
  }
}

}  // namespace beamline::server
