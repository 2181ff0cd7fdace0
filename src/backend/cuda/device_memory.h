// SPDX-License-Identifier: Apache-2.0
//
// Tensors over memory of the CUDA runtime, made without ATen: a pointer, a shape and who frees it. Memory is 256-byte
// aligned and lives until the last tensor over it is gone.
#pragma once

#include <cstddef>
#include <functional>
#include <utility>

#include <ATen/core/Tensor.h>
#include <cuda_runtime.h>

#include "beamline/kernels/launch.h"

namespace beamline::backend::cuda {

// c10::Error on anything but success; OutOfMemory (base/out_of_memory.h) where memory of the device, or page-locked
// memory of the host, ran out: NewTensor and PinnedMemory, too.
void Check(cudaError_t error, const char* what);
void Check(kernels::LaunchError error, const char* what);

// Memory of a device that is held for later and can be given back: where the device has none left, NewTensor asks for
// it before it gives up. `release` is called in any thread that allocates, in one at a time.
class Reserve {
 public:
  Reserve(c10::Device device, std::function<void()> release);
  ~Reserve();
  Reserve(const Reserve&) = delete;
  Reserve& operator=(const Reserve&) = delete;

 private:
  friend void ReleaseReserves(c10::Device device);
  const c10::Device device_;
  const std::function<void()> release_;
};

// A contiguous tensor of undefined values. `device` is what it calls itself: the CPU under the tests' emulator.
at::Tensor NewTensor(c10::Device device, at::IntArrayRef shape, c10::ScalarType dtype);

// A contiguous tensor over part of a storage; `offset` in elements.
at::Tensor TensorOver(c10::Storage storage, int64_t offset, at::IntArrayRef shape, c10::ScalarType dtype);

// Another shape and type over part of a tensor's memory, which it keeps alive; `offset` in bytes from its first
// element.
at::Tensor View(const at::Tensor& of, int64_t offset, at::IntArrayRef shape, c10::ScalarType dtype);

// Page-locked host memory.
class PinnedMemory {
 public:
  explicit PinnedMemory(size_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_), device_(other.device_) {}
  PinnedMemory& operator=(PinnedMemory&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(device_, other.device_);
    return *this;
  }

  char* data() const { return static_cast<char*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
  int device_ = 0;  // that the thread which made it used
};

kernels::DataType KernelType(c10::ScalarType dtype);

}  // namespace beamline::backend::cuda
