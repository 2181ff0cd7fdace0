// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/kept_memory.h"

#include <algorithm>
#include <utility>

#include "backend/room.h"

namespace beamline::backend::cuda {

struct KeptMemory::Lent {
  std::shared_ptr<Pool> pool;
  Blocks* home = nullptr;  // of the pool
  Blocks block;            // one: a list, so that it goes home without an allocation
};

KeptMemory::KeptMemory(c10::Device device) : device_(device), reserve_(device, [this] { ReleaseFree(); }) {}

KeptMemory::~KeptMemory() {
  Blocks free;
  const std::lock_guard<std::mutex> lock(pool_->mu);
  pool_->ended = true;
  free = TakeAll(*pool_);
}

KeptMemory::Blocks KeptMemory::TakeAll(Pool& pool) {
  Blocks all;
  for (auto& [bytes, blocks] : pool.free) all.splice(all.end(), blocks);
  return all;
}

bool KeptMemory::ReleaseFree() {
  Blocks free;  // let go of, which waits for the device, when nobody waits for the lock
  const std::lock_guard<std::mutex> lock(pool_->mu);
  free = TakeAll(*pool_);
  return !free.empty();
}

at::Tensor KeptMemory::Take(at::IntArrayRef shape, c10::ScalarType dtype) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t size : shape) bytes *= size;
  bytes = RoomInFewSizes(std::max<int64_t>(bytes, 256));
  auto lent = std::make_unique<Lent>();
  lent->pool = pool_;
  {
    const std::lock_guard<std::mutex> lock(pool_->mu);
    Blocks& free = pool_->free[bytes];
    lent->home = &free;
    if (!free.empty()) lent->block.splice(lent->block.begin(), free, free.begin());
  }
  if (lent->block.empty()) {
    lent->block.push_back(NewTensor(device_, {bytes}, c10::kByte));
    ++allocations_;
  }
  void* const memory = lent->block.front().mutable_data_ptr();
  c10::DataPtr data(memory, lent.release(), &GiveBack, device_);
  c10::Storage storage(c10::Storage::use_byte_size_t(), static_cast<size_t>(bytes), std::move(data),
                       /*allocator=*/nullptr, /*resizable=*/false);
  return TensorOver(std::move(storage), 0, shape, dtype);
}

void KeptMemory::GiveBack(void* of_tensor) {
  const std::unique_ptr<Lent> lent(static_cast<Lent*>(of_tensor));
  const std::lock_guard<std::mutex> lock(lent->pool->mu);
  if (!lent->pool->ended) lent->home->splice(lent->home->begin(), lent->block);
}

}  // namespace beamline::backend::cuda
