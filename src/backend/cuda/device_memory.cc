// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/device_memory.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/out_of_memory.h"

namespace beamline::backend::cuda {

at::Tensor TensorOver(c10::Storage storage, int64_t offset, at::IntArrayRef shape, c10::ScalarType dtype) {
  const c10::DispatchKey key = storage.device().is_cpu() ? c10::DispatchKey::CPU : c10::DispatchKey::CUDA;
  at::Tensor tensor(c10::make_intrusive<at::TensorImpl>(std::move(storage), c10::DispatchKeySet(key),
                                                        c10::scalarTypeToTypeMeta(dtype)));
  tensor.unsafeGetTensorImpl()->set_storage_offset(offset);
  tensor.unsafeGetTensorImpl()->set_sizes_contiguous(shape);
  return tensor;
}

namespace {

std::mutex reserves_mu;
std::vector<const Reserve*>& Reserves() {  // guarded by reserves_mu
  static auto* const reserves = new std::vector<const Reserve*>;
  return *reserves;
}

int CurrentDevice() {
  int device = 0;
  Check(cudaGetDevice(&device), "the current device");
  return device;
}

struct DeviceAllocation {
  void* memory = nullptr;
  int device = 0;
};

// In any thread: one that has chosen no device would begin to use the first.
void FreeDevice(void* allocation) {
  const std::unique_ptr<DeviceAllocation> owned(static_cast<DeviceAllocation*>(allocation));
  if (owned->memory == nullptr) return;
  cudaSetDevice(owned->device);
  cudaFree(owned->memory);
}

// The runtime remembers the error, which is no more than that, and would tell it of the next launch.
[[noreturn]] void ThrowOutOfMemory(std::string what) {
  cudaGetLastError();
  size_t free = 0, total = 0;
  if (cudaMemGetInfo(&free, &total) == cudaSuccess) absl::StrAppend(&what, ", ", free, " of ", total, " are free");
  throw OutOfMemory(std::move(what));
}

}  // namespace

Reserve::Reserve(c10::Device device, std::function<void()> release) : device_(device), release_(std::move(release)) {
  const std::lock_guard<std::mutex> lock(reserves_mu);
  Reserves().push_back(this);
}

Reserve::~Reserve() {
  const std::lock_guard<std::mutex> lock(reserves_mu);
  std::erase(Reserves(), this);
}

// Behind another thread that does the same, until the device has what that one gives back.
void ReleaseReserves(c10::Device device) {
  const std::lock_guard<std::mutex> lock(reserves_mu);
  for (const Reserve* reserve : Reserves()) {
    if (reserve->device_ == device) reserve->release_();
  }
}

void Check(cudaError_t error, const char* what) {
  if (error == cudaErrorMemoryAllocation) ThrowOutOfMemory(absl::StrCat("cuda: ", what));
  TORCH_CHECK(error == cudaSuccess, "cuda: ", what, ": ", cudaGetErrorString(error));
}

void Check(kernels::LaunchError error, const char* what) {
  TORCH_CHECK(error != kernels::LaunchError::kInvalidArgument, "cuda: ", what,
              ": a size that the kernel does not take (widths are multiples of 8)");
  if (error == kernels::LaunchError::kCuda) Check(cudaGetLastError(), what);
  TORCH_CHECK(error == kernels::LaunchError::kOk, "cuda: ", what, ": the runtime refused the launch");
}

at::Tensor NewTensor(c10::Device device, at::IntArrayRef shape, c10::ScalarType dtype) {
  int64_t bytes = static_cast<int64_t>(c10::elementSize(dtype));
  for (const int64_t size : shape) bytes *= size;
  auto owned = std::make_unique<DeviceAllocation>(DeviceAllocation{nullptr, CurrentDevice()});
  void*& memory = owned->memory;
  const auto allocate = [&] { return cudaMalloc(&memory, static_cast<size_t>(std::max<int64_t>(bytes, 1))); };
  cudaError_t error = allocate();
  if (error == cudaErrorMemoryAllocation) {
    ReleaseReserves(device);
    cudaGetLastError();  // the runtime would tell it of the next launch
    error = allocate();
  }
  if (error == cudaErrorMemoryAllocation) ThrowOutOfMemory(absl::StrCat("cuda: ", bytes, " bytes of device memory"));
  Check(error, "device memory");
  c10::Storage storage(c10::Storage::use_byte_size_t(), static_cast<size_t>(bytes),
                       c10::DataPtr(memory, owned.release(), &FreeDevice, device), /*allocator=*/nullptr,
                       /*resizable=*/false);
  return TensorOver(std::move(storage), 0, shape, dtype);
}

at::Tensor View(const at::Tensor& of, int64_t offset, at::IntArrayRef shape, c10::ScalarType dtype) {
  const int64_t size = static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t begin = of.storage_offset() * static_cast<int64_t>(of.itemsize()) + offset;
  TORCH_CHECK(begin % size == 0, "cuda: a view that begins inside of an element");
  return TensorOver(of.storage(), begin / size, shape, dtype);
}

PinnedMemory::PinnedMemory(size_t bytes) : bytes_(bytes), device_(CurrentDevice()) {
  Check(cudaMallocHost(&data_, bytes), "pinned memory");
}

PinnedMemory::~PinnedMemory() {
  if (data_ == nullptr) return;
  cudaSetDevice(device_);  // as FreeDevice
  cudaFreeHost(data_);
}

kernels::DataType KernelType(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::kBFloat16:
      return kernels::DataType::kBFloat16;
    case c10::kHalf:
      return kernels::DataType::kFloat16;
    default:
      TORCH_CHECK(dtype == c10::kFloat, "cuda: tensors are fp32, bf16 or fp16");
      return kernels::DataType::kFloat32;
  }
}

}  // namespace beamline::backend::cuda
