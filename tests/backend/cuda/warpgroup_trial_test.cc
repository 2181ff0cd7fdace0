// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/warpgroup_trial.h"

#include <cstdlib>

#include <cuda_runtime.h>

#include "backend/test_context.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::backend::cuda {
namespace {

#if defined(BEAMLINE_EMULATED_CUBLASLT)

TEST(WarpgroupTrialTest, TellsAKernelThatGivesTheAnswersFromOneThatDoesNot) {
  const c10::Device where(c10::kCPU);
  EXPECT_TRUE(TryWarpgroups(where).ok()) << TryWarpgroups(where);
  emulator::broken_wgmma = true;
  const absl::Status broken = TryWarpgroups(where);
  emulator::broken_wgmma = false;
  EXPECT_EQ(broken.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(broken.message()),
              testing::HasSubstr("bf16, attention with heads of 32: differs from the portable kernel"));
}

#else

TEST(WarpgroupTrialTest, TheDeviceGivesTheAnswers) {
  const absl::Status status = MakeCudaTestContext("fp32").status();
  if (!status.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << status;
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_TRUE(TryWarpgroups(c10::Device(c10::kCUDA, 0)).ok()) << TryWarpgroups({c10::kCUDA, 0});
}

#endif

}  // namespace
}  // namespace beamline::backend::cuda
