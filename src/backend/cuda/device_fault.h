// SPDX-License-Identifier: Apache-2.0
//
// Errors that end a device for this process: of some, CUDA's documentation says that every later call gives the same
// and that the process must be started anew. What went wrong in a kernel is said where somebody waits for it.
#pragma once

#include <atomic>
#include <mutex>

#include <cuda_runtime.h>

#include "absl/status/status.h"

namespace beamline::backend::cuda {

// Whether the process can compute nothing any more after this error. Pure.
bool EndsContext(cudaError_t error);

// The first error of a device that ends its context. Thread-safe.
class DeviceFault {
 public:
  // Keeps the error where it is the first such; `what` was waited for.
  void Note(cudaError_t error, const char* what);
  // c10::Error on anything but success, which is noted, too.
  void Check(cudaError_t error, const char* what);
  // UNAVAILABLE: another process may serve the request. OK: none so far.
  absl::Status status() const;

 private:
  std::atomic<bool> found_{false};
  mutable std::mutex mu_;
  absl::Status status_;  // guarded by mu_
};

}  // namespace beamline::backend::cuda
