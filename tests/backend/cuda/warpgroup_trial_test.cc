// SPDX-License-Identifier: Apache-2.0
#include "backend/cuda/warpgroup_trial.h"

#include <cstdlib>

#include <cuda_runtime.h>

#include "backend/test_context.h"
#include "beamline/kernels/attention_cuda.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::backend::cuda {
namespace {

#if defined(BEAMLINE_EMULATED_CUBLASLT)

TEST(WarpgroupTrialTest, TellsAKernelThatGivesTheAnswersFromOneThatDoesNot) {
  const c10::Device where(c10::kCPU);
  ASSERT_EQ(kernels::AttentionPrepare(), kernels::LaunchError::kOk);
  ASSERT_EQ(kernels::PrepareWarpgroups(), kernels::LaunchError::kOk);
  EXPECT_EQ(TryWarpgroups(where).value(), "");
  emulator::broken_wgmma = true;
  const absl::StatusOr<std::string> differs = TryWarpgroups(where);
  emulator::broken_wgmma = false;
  EXPECT_THAT(differs.value(),
              testing::HasSubstr("bf16, attention with heads of 32: differs from the portable kernel"));
}

// In the first of the launches that are tried together, which has some 9,000 of them; the others are right.
TEST(WarpgroupTrialTest, FindsANaNThatIsFollowedByAnswers) {
  ASSERT_EQ(kernels::AttentionPrepare(), kernels::LaunchError::kOk);
  ASSERT_EQ(kernels::PrepareWarpgroups(), kernels::LaunchError::kOk);
  emulator::nan_wgmmas = 2000;
  EXPECT_THAT(TryWarpgroups(c10::Device(c10::kCPU)).value(),
              testing::HasSubstr("bf16, attention with heads of 32: differs from the portable kernel by nan"));
  EXPECT_EQ(emulator::nan_wgmmas, 0);
}

#else

TEST(WarpgroupTrialTest, TheDeviceGivesTheAnswers) {
  const absl::Status status = MakeCudaTestContext("fp32").status();
  if (!status.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << status;
  ASSERT_TRUE(status.ok()) << status;
  if (kernels::PrepareWarpgroups() != kernels::LaunchError::kOk) GTEST_SKIP() << "no wgmma here";
  EXPECT_EQ(TryWarpgroups(c10::Device(c10::kCUDA, 0)).value(), "");
}

#endif

}  // namespace
}  // namespace beamline::backend::cuda
