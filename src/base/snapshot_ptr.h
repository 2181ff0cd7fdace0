// SPDX-License-Identifier: Apache-2.0
//
// The current version of an immutable value: readers take a shared pointer and keep what they got for as long as they
// hold it; a writer swaps in the next version without waiting for them (TensorFlow Serving's FastReadDynamicPtr). The
// lock covers one copy of a pointer. It is a mutex, not std::atomic<std::shared_ptr>, whose gcc 12 form ThreadSanitizer
// cannot follow. Thread-safe.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

namespace beamline {

template <typename T>
class SnapshotPtr {
 public:
  using Pointer = std::shared_ptr<const T>;

  explicit SnapshotPtr(Pointer value = nullptr) : value_(std::move(value)) {}

  Pointer Get() const {
    std::lock_guard lock(mu_);
    return value_;
  }

  // Returns the version it replaced, so that the caller, not a reader, destroys it where nobody else holds it.
  Pointer Swap(Pointer value) {
    std::lock_guard lock(mu_);
    value_.swap(value);
    return value;
  }

 private:
  mutable std::mutex mu_;
  Pointer value_;  // guarded by mu_
};

}  // namespace beamline
