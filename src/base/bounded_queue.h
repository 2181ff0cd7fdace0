// SPDX-License-Identifier: Apache-2.0
//
// A first-in-first-out queue of bounded size between threads, for pipelines such as reading ahead of training. TryPush
// refuses instead of growing; Push waits for room. After Close, pushes are refused and pops drain what is left.
// Thread-safe.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

namespace beamline {

template <typename T>
class BoundedQueue {
 public:
  // REQUIRES: capacity >= 1.
  explicit BoundedQueue(size_t capacity) : capacity_(capacity) {}

  // False, and `value` untouched, when full or closed.
  bool TryPush(T&& value) {
    std::lock_guard lock(mu_);
    if (closed_ || queue_.size() >= capacity_) return false;
    PushLocked(std::move(value));
    return true;
  }

  // Waits for room; false, and `value` untouched, when closed.
  bool Push(T&& value) {
    std::unique_lock lock(mu_);
    room_.wait(lock, [this] { return closed_ || queue_.size() < capacity_; });
    if (closed_) return false;
    PushLocked(std::move(value));
    return true;
  }

  std::optional<T> TryPop() {
    std::lock_guard lock(mu_);
    return PopLocked();
  }

  // Waits for a value; nullopt when closed and empty.
  std::optional<T> Pop() {
    std::unique_lock lock(mu_);
    filled_.wait(lock, [this] { return closed_ || !queue_.empty(); });
    return PopLocked();
  }

  void Close() {
    std::lock_guard lock(mu_);
    closed_ = true;
    filled_.notify_all();
    room_.notify_all();
  }

  size_t size() const {
    std::lock_guard lock(mu_);
    return queue_.size();
  }
  size_t capacity() const { return capacity_; }

 private:
  void PushLocked(T&& value) {
    queue_.push_back(std::move(value));
    filled_.notify_one();
  }
  std::optional<T> PopLocked() {
    if (queue_.empty()) return std::nullopt;
    std::optional<T> value(std::move(queue_.front()));
    queue_.pop_front();
    room_.notify_one();
    return value;
  }

  const size_t capacity_;
  mutable std::mutex mu_;
  std::condition_variable filled_, room_;
  std::deque<T> queue_;  // guarded by mu_
  bool closed_ = false;  // guarded by mu_
};

}  // namespace beamline
