// SPDX-License-Identifier: Apache-2.0
//
// Which errors end a device for a process, and where the backend hears of them.
#include "backend/cuda/device_fault.h"

#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/cuda/cuda_backend.h"
#include "backend/ops.h"
#include "backend/test_context.h"
#include "base/out_of_memory.h"

namespace beamline::backend::cuda {
namespace {

using ::testing::HasSubstr;

TEST(DeviceFaultTest, OnlyErrorsAfterWhichNothingWorksAreFaults) {
  for (const cudaError_t error :
       {cudaErrorContained, cudaErrorIllegalAddress, cudaErrorLaunchTimeout, cudaErrorAssert,
        cudaErrorHardwareStackError, cudaErrorIllegalInstruction, cudaErrorMisalignedAddress,
        cudaErrorInvalidAddressSpace, cudaErrorInvalidPc, cudaErrorLaunchFailure, cudaErrorTensorMemoryLeak,
        cudaErrorMpsClientTerminated, cudaErrorExternalDevice, cudaErrorECCUncorrectable, cudaErrorNvlinkUncorrectable,
        cudaErrorContextIsDestroyed}) {
    EXPECT_TRUE(EndsContext(error)) << error;
  }
  for (const cudaError_t error :
       {cudaSuccess, cudaErrorMemoryAllocation, cudaErrorLaunchOutOfResources, cudaErrorStreamCaptureUnsupported,
        cudaErrorStreamCaptureInvalidated, cudaErrorUnknown}) {
    EXPECT_FALSE(EndsContext(error)) << error;
  }
}

TEST(DeviceFaultTest, TheFirstFaultStays) {
  DeviceFault fault;
  EXPECT_NO_THROW(fault.Check(cudaSuccess, "nothing"));
  EXPECT_THROW(fault.Check(cudaErrorMemoryAllocation, "too much"), OutOfMemory);
  EXPECT_TRUE(fault.status().ok());
  EXPECT_THROW(fault.Check(cudaErrorIllegalAddress, "a batch"), c10::Error);
  fault.Note(cudaErrorAssert, "another");
  EXPECT_EQ(fault.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(fault.status().message()), HasSubstr("cuda: a batch: "));
  EXPECT_THAT(std::string(fault.status().message()), HasSubstr("(cudaErrorIllegalAddress)"));
}

#if defined(BEAMLINE_EMULATED_CUBLASLT)
// Of a batch that was broken off before it waited, too.
TEST(DeviceFaultTest, TheEndOfABatchHearsOfIt) {
  for (const cudaError_t error : {cudaErrorUnknown, cudaErrorIllegalAddress}) {
    const auto backend = MakeCudaTestBackend();
    emulator::device_error = error;
    { const auto batch = backend->BeginBatch(nullptr); }
    emulator::device_error = cudaSuccess;
    EXPECT_EQ(backend->fault().ok(), error == cudaErrorUnknown);
  }
}

// Whatever ran before on the device shows at the next call that waits, which may be a weight's.
TEST(DeviceFaultTest, CopiesOutsideOfABatchHearOfIt) {
  for (const cudaError_t error : {cudaErrorUnknown, cudaErrorIllegalAddress}) {
    for (const bool up : {true, false}) {
      const auto backend = MakeCudaTestBackend();
      Context ctx;
      ctx.backend = backend.get();
      const Tensor there = UploadWeight(ctx, std::vector<float>(8), {1, 8});
      emulator::device_error = error;
      if (up) {
        EXPECT_THROW(UploadWeight(ctx, std::vector<float>(8), {1, 8}), c10::Error);
      } else {
        EXPECT_THROW(DownloadFloats(ctx, there), c10::Error);
      }
      emulator::device_error = cudaSuccess;
      EXPECT_EQ(backend->fault().ok(), error == cudaErrorUnknown) << "of other errors nothing is known";
    }
  }
}

TEST(DeviceFaultTest, AnEndedBatchWaitsOnce) {
  const auto backend = MakeCudaTestBackend();
  const int before = emulator::waits;
  {
    const auto batch = backend->BeginBatch(nullptr);
    batch->End();
  }
  EXPECT_EQ(emulator::waits, before + 1);
}
#endif

}  // namespace
}  // namespace beamline::backend::cuda
