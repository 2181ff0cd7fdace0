// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/cuda_context.h"

#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "backend/cuda/cuda_backend.h"
#include "beamline/status.h"

namespace beamline::backend::cuda {

absl::StatusOr<const Backend*> BackendOf(c10::Device device) {
  static auto* const mutex = new std::mutex;
  static auto* const backends = new std::map<int, std::unique_ptr<CudaBackend>>;  // guarded by mutex
  const c10::Device where(c10::kCUDA, device.has_index() ? device.index() : c10::DeviceIndex{0});
  const std::lock_guard<std::mutex> lock(*mutex);
  std::unique_ptr<CudaBackend>& backend = (*backends)[where.index()];
  if (backend == nullptr) {
    BEAMLINE_ASSIGN_OR_RETURN(const CublasLt* lt, LoadCublasLt());
    BEAMLINE_ASSIGN_OR_RETURN(backend, CudaBackend::Make(*lt, where));
  }
  return backend.get();
}

}  // namespace beamline::backend::cuda
