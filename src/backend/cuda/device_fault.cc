// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/device_fault.h"

#include "absl/strings/str_cat.h"
#include "backend/cuda/device_memory.h"

namespace beamline::backend::cuda {

bool EndsContext(cudaError_t error) {
  switch (error) {
    // "To continue using CUDA, the process must be terminated and relaunched."
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated:
    case cudaErrorExternalDevice:
    // Said without that sentence, but what held the weights is gone.
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
      return true;
    // Above all cudaErrorDevicesUnavailable and cudaErrorUnknown, of which nothing of the kind is said: an engine whose
    // batches go on failing is broken anyway (engine/README.md, 5.12).
    default:
      return false;
  }
}

void DeviceFault::Note(cudaError_t error, const char* what) {
  if (!EndsContext(error)) return;
  const std::lock_guard<std::mutex> lock(mu_);
  if (!status_.ok()) return;
  status_ = absl::UnavailableError(absl::StrCat("the device has failed for this process: cuda: ", what, ": ",
                                                cudaGetErrorString(error), " (", cudaGetErrorName(error), ")"));
  found_.store(true, std::memory_order_release);
}

void DeviceFault::Check(cudaError_t error, const char* what) {
  Note(error, what);
  cuda::Check(error, what);
}

absl::Status DeviceFault::status() const {
  if (!found_.load(std::memory_order_acquire)) return absl::OkStatus();  // asked for every request
  const std::lock_guard<std::mutex> lock(mu_);
  return status_;
}

}  // namespace beamline::backend::cuda
