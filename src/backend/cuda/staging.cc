// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/staging.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace beamline::backend::cuda {
namespace {

constexpr size_t kSmallestChunk = 256 << 10;
constexpr size_t kStagedAlignment = 256;

}  // namespace

Staging::Chunk& Staging::Reserve(size_t bytes) {
  if (chunks_.empty() || chunks_.back().host.bytes() - chunks_.back().used < bytes) {
    size_t size = kSmallestChunk;
    for (const Chunk& chunk : chunks_) size = std::max(size, 2 * chunk.host.bytes());
    size = std::max(size, std::bit_ceil(bytes));
    chunks_.push_back(
        {PinnedMemory(size), NewTensor(device_, {static_cast<int64_t>(size)}, c10::ScalarType::Byte), 0, 0});
  }
  return chunks_.back();
}

at::Tensor Staging::Add(const void* values, at::IntArrayRef shape, c10::ScalarType dtype) {
  size_t bytes = c10::elementSize(dtype);
  for (const int64_t size : shape) bytes *= static_cast<size_t>(size);
  const size_t reserved = (std::max<size_t>(bytes, 1) + kStagedAlignment - 1) / kStagedAlignment * kStagedAlignment;
  Chunk& chunk = Reserve(reserved);
  if (bytes > 0) std::memcpy(chunk.host.data() + chunk.used, values, bytes);
  at::Tensor staged = View(chunk.device, static_cast<int64_t>(chunk.used), shape, dtype);
  chunk.used += reserved;
  return staged;
}

void Staging::Flush(cudaStream_t stream) {
  const bool pending =
      std::any_of(chunks_.begin(), chunks_.end(), [](const Chunk& chunk) { return chunk.sent != chunk.used; });
  if (!pending) return;
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  Check(cudaStreamIsCapturing(stream, &capture), "copy to the device");
  // Its bytes would be sent again by every launch.
  TORCH_CHECK(capture == cudaStreamCaptureStatusNone, "cuda: an upload inside of a pass that is captured");
  for (Chunk& chunk : chunks_) {
    if (chunk.sent == chunk.used) continue;
    Check(cudaMemcpyAsync(static_cast<char*>(chunk.device.mutable_data_ptr()) + chunk.sent,
                          chunk.host.data() + chunk.sent, chunk.used - chunk.sent, cudaMemcpyHostToDevice, stream),
          "copy to the device");
    chunk.sent = chunk.used;
    ++copies_;
  }
}

const void* Staging::HostCopy(const at::Tensor& tensor) const {
  const char* at = static_cast<const char*>(tensor.const_data_ptr());
  for (const Chunk& chunk : chunks_) {
    const char* begin = static_cast<const char*>(chunk.device.const_data_ptr());
    if (at >= begin && at < begin + chunk.used) return chunk.host.data() + (at - begin);
  }
  return nullptr;
}

// What was spread over several chunks fits into the last one next time. A chunk of which somebody still holds a part
// goes to them.
void Staging::Reset() {
  if (chunks_.size() > 1) chunks_.erase(chunks_.begin(), chunks_.end() - 1);
  if (!chunks_.empty() && chunks_.back().device.storage().use_count() > 1) chunks_.clear();
  if (!chunks_.empty()) chunks_.back().used = chunks_.back().sent = 0;
  copies_ = 0;
}

}  // namespace beamline::backend::cuda
