// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cuda_context.h"

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backend/cuda/cuda_backend.h"
#include "beamline/status.h"

namespace beamline::backend::cuda {

namespace {

absl::StatusOr<Fp8Scaling> ScalingOfDevice(int index) {
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, index); error != cudaSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat("device: cuda:", index, " cannot be used: ", cudaGetErrorString(error)));
  }
  return Fp8ScalingOf(properties.major, properties.minor, absl::StrCat("cuda:", index, " (", properties.name, ")"));
}

}  // namespace

absl::StatusOr<const Backend*> BackendOf(c10::Device device, Fp8Products products) {
  static auto* const mu = new std::mutex;
  // Guarded by mu.
  static auto* const backends = new std::map<std::pair<int, Fp8Products>, std::unique_ptr<CudaBackend>>;
  const c10::Device where(c10::kCUDA, device.has_index() ? device.index() : c10::DeviceIndex{0});
  const std::lock_guard<std::mutex> lock(*mu);
  std::unique_ptr<CudaBackend>& backend = (*backends)[{where.index(), products}];
  if (backend == nullptr) {
    BEAMLINE_ASSIGN_OR_RETURN(const CublasLt* lt, LoadCublasLt());
    Fp8 fp8{.products = products};
    if (fp8.on()) {
      BEAMLINE_ASSIGN_OR_RETURN(fp8.scaling, ScalingOfDevice(where.index()));
    }
    BEAMLINE_ASSIGN_OR_RETURN(backend, CudaBackend::Make(*lt, where, fp8));
  }
  return backend.get();
}

}  // namespace beamline::backend::cuda
