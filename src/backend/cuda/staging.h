// SPDX-License-Identifier: Apache-2.0
//
// What a batch sends to the device, gathered in page-locked memory and sent by one copy before the first kernel that
// follows. A batch that uploads all it needs before it computes makes one copy. Not thread-safe.
#pragma once

#include <cstdint>
#include <vector>

#include "backend/cuda/device_memory.h"

namespace beamline::backend::cuda {

class Staging {
 public:
  explicit Staging(c10::Device device) : device_(device) {}

  // A tensor that holds the values once Flush has passed on the stream; valid until the next Reset and beyond.
  at::Tensor Add(const void* values, at::IntArrayRef shape, c10::ScalarType dtype);
  void Flush(cudaStream_t stream);
  // The values that an added tensor was made of, until Reset; null for any other tensor.
  const void* HostCopy(const at::Tensor& tensor) const;
  // Begins a new batch. REQUIRES: the last one's copies are done.
  void Reset();

  int64_t copies() const { return copies_; }  // since Reset

 private:
  struct Chunk {
    PinnedMemory host;
    at::Tensor device;  // bytes
    size_t used = 0, sent = 0;
  };
  Chunk& Reserve(size_t bytes);

  const c10::Device device_;
  std::vector<Chunk> chunks_;
  int64_t copies_ = 0;
};

}  // namespace beamline::backend::cuda
