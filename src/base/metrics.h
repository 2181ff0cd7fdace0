// SPDX-License-Identifier: Apache-2.0
//
// Counts that many threads add to and a status call or an exporter reads. No registry and no names: the owner holds
// them as members and says what they mean. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>

namespace beamline {

// Only ever grows.
class Counter {
 public:
  void Add(uint64_t by = 1) { value_.fetch_add(by, std::memory_order_relaxed); }
  uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  // Relaxed: a count orders nothing; readers want a recent value of each, not one instant of all.
  std::atomic<uint64_t> value_{0};
};

// Rises and falls.
class Gauge {
 public:
  void Add(int64_t by) { value_.fetch_add(by, std::memory_order_relaxed); }
  int64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};  // relaxed, as in Counter
};

}  // namespace beamline
