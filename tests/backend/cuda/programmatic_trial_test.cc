// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/programmatic_trial.h"

#include <cstdlib>

#include <cuda_runtime.h>

#include "backend/test_context.h"
#include "beamline/kernels/programmatic_cuda.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::backend::cuda {
namespace {

#if defined(BEAMLINE_EMULATED_CUBLASLT)

TEST(ProgrammaticTrialTest, TellsKernelsThatWaitFromThoseThatDoNot) {
  const c10::Device where(c10::kCPU);
  ASSERT_TRUE(kernels::ProgrammaticLaunch());
  EXPECT_EQ(TryProgrammaticLaunch(where).value(), "");
  emulator::broken_programmatic = true;
  const absl::StatusOr<std::string> wrong = TryProgrammaticLaunch(where);
  emulator::broken_programmatic = false;
  EXPECT_EQ(wrong.value(), "a chain of kernels gives other values");
  emulator::broken_programmatic_graphs = true;
  const absl::StatusOr<std::string> in_graphs = TryProgrammaticLaunch(where);
  emulator::broken_programmatic_graphs = false;
  EXPECT_EQ(in_graphs.value(), "a graph of such kernels gives other values");
}

TEST(ProgrammaticTrialTest, ARefusedLaunchIsAReasonToGoWithoutAndALostDeviceIsAnError) {
  const c10::Device where(c10::kCPU);
  emulator::launch_error = cudaErrorLaunchOutOfResources;
  absl::StatusOr<std::string> wrong = TryProgrammaticLaunch(where);
  EXPECT_THAT(wrong.value(), testing::StartsWith("a chain of kernels: "));
  constexpr int kChain = 24 + 6;  // launches
  emulator::launches_before_error = kChain + 5;
  wrong = TryProgrammaticLaunch(where);
  EXPECT_THAT(wrong.value(), testing::StartsWith("a graph of such kernels: "));
  emulator::launches_before_error = 0;
  emulator::launch_error = cudaErrorIllegalAddress;
  wrong = TryProgrammaticLaunch(where);
  emulator::launch_error = cudaSuccess;
  EXPECT_EQ(wrong.status().code(), absl::StatusCode::kInternal) << wrong.status();
  EXPECT_EQ(TryProgrammaticLaunch(where).value(), "");
}

// In processes of their own: what is left or read there stays so.
TEST(ProgrammaticTrialDeathTest, LaunchesGoWithoutWhereSomebodyHasLeftIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto leave = [] {
    kernels::LeaveProgrammaticLaunch();
    emulator::broken_programmatic = true;  // of none
    std::exit(!kernels::ProgrammaticLaunch() && TryProgrammaticLaunch(c10::Device(c10::kCPU)).value().empty() ? 0 : 1);
  };
  EXPECT_EXIT(leave(), testing::ExitedWithCode(0), "");
  const auto read_switch = [] {
    setenv(kernels::kProgrammaticSwitch, "0", 1);
    std::exit(kernels::ProgrammaticLaunch() ? 1 : 0);
  };
  EXPECT_EXIT(read_switch(), testing::ExitedWithCode(0), "");
  const auto older = [] {
    emulator::compute_capability = 8;
    std::exit(kernels::ProgrammaticLaunch() ? 1 : 0);
  };
  EXPECT_EXIT(older(), testing::ExitedWithCode(0), "");
}

#else

TEST(ProgrammaticTrialTest, TheDeviceWaits) {
  const absl::Status status = MakeCudaTestContext("fp32").status();
  if (!status.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << status;
  ASSERT_TRUE(status.ok()) << status;
  int major = 0;
  ASSERT_EQ(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), cudaSuccess);
  const char* wanted = std::getenv(kernels::kProgrammaticSwitch);
  if (major < 9 || (wanted != nullptr && *wanted == '0')) GTEST_SKIP() << "no programmatic launches here";
  ASSERT_TRUE(kernels::ProgrammaticLaunch()) << "the start went on without them: its log says why";
  EXPECT_EQ(TryProgrammaticLaunch(c10::Device(c10::kCUDA, 0)).value(), "");
}

#endif

}  // namespace
}  // namespace beamline::backend::cuda
