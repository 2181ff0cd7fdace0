// SPDX-License-Identifier: Apache-2.0
//
// Memory of a device for what outlives batches: encoded contexts, thousands of them, which are let go of in any order
// and in any thread. What was let go of is taken again by the next of its size, found without a look at the others,
// since cudaMalloc and cudaFree would cost every request; it goes back to the device where that has nothing else left
// (Reserve of device_memory.h), and by ReleaseFree. A tensor takes less than a quarter more than was asked for, and may
// outlive the KeptMemory. Thread-safe.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <mutex>

#include "backend/cuda/device_memory.h"

namespace beamline::backend::cuda {

class KeptMemory {
 public:
  explicit KeptMemory(c10::Device device);
  ~KeptMemory();
  KeptMemory(const KeptMemory&) = delete;
  KeptMemory& operator=(const KeptMemory&) = delete;

  // A contiguous tensor of undefined values.
  at::Tensor Take(at::IntArrayRef shape, c10::ScalarType dtype);
  // Gives back to the device what nobody holds; false: there is none.
  bool ReleaseFree();
  int64_t allocations() const { return allocations_; }

 private:
  using Blocks = std::list<at::Tensor>;
  struct Pool {
    std::mutex mu;
    bool ended = false;              // guarded by mu
    std::map<int64_t, Blocks> free;  // guarded by mu; by bytes; a size that was met stays
  };
  struct Lent;  // one block, of a tensor
  static void GiveBack(void* lent);
  static Blocks TakeAll(Pool& pool);

  const c10::Device device_;
  const std::shared_ptr<Pool> pool_ = std::make_shared<Pool>();
  std::atomic<int64_t> allocations_ = 0;
  const Reserve reserve_;
};

}  // namespace beamline::backend::cuda
