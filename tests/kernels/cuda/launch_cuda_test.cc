// SPDX-License-Identifier: Apache-2.0
//
// What a launcher says of its launch is that launch's own result.
#include <cstddef>
#include <cstdlib>
#include <vector>

#include "beamline/kernels/elementwise_cuda.h"
#include "beamline/kernels/warpgroups_cuda.h"
#include "kernels/cuda/device.h"

namespace beamline::kernels {
namespace {

class LaunchGpu : public GpuTest {};

struct Addition {
  const DeviceBuffer<float> x{std::vector<float>(8, 1.5f)};
  const DeviceBuffer<float> sum{8};
  LaunchError Launch() const {
    return AddCuda({.type = DataType::kFloat32, .count = 8, .x = x.data(), .y = x.data(), .out = sum.data()}, nullptr);
  }
};

// An allocation that failed is no news of the launch after it, and whoever asks later still hears of it.
TEST_F(LaunchGpu, AnEarlierErrorIsNotTheLaunchs) {
  const Addition addition;
  void* none = nullptr;
  ASSERT_EQ(cudaMalloc(&none, size_t{1} << 60), cudaErrorMemoryAllocation);
  EXPECT_EQ(addition.Launch(), LaunchError::kOk);
  EXPECT_EQ(cudaGetLastError(), cudaErrorMemoryAllocation);
  EXPECT_EQ(addition.sum.Download(), std::vector<float>(8, 3.0f));
}

#if defined(BEAMLINE_EMULATED)
TEST_F(LaunchGpu, ALaunchThatIsRefusedIsToldAndNothingRuns) {
  const Addition addition;
  emulator::launch_error = cudaErrorLaunchOutOfResources;
  EXPECT_EQ(addition.Launch(), LaunchError::kCuda);
  emulator::launch_error = cudaSuccess;
  EXPECT_EQ(cudaGetLastError(), cudaErrorLaunchOutOfResources) << "says why";
  for (const float value : addition.sum.Download()) EXPECT_TRUE(MayBeUnwritten(value)) << value;
  EXPECT_EQ(addition.Launch(), LaunchError::kOk) << "the next may fit";
}
#endif

// In a process of its own, since the switch is read once.
TEST(WarpgroupsSwitchDeathTest, KernelsWithWgmmaAreLeftOutWhereItIsOff) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto prepare = [] {
    setenv(kWarpgroupsSwitch, "0", 1);
    std::exit(static_cast<int>(PrepareWarpgroups()));
  };
  EXPECT_EXIT(prepare(), testing::ExitedWithCode(static_cast<int>(LaunchError::kInvalidArgument)), "");
#if defined(BEAMLINE_EMULATED)
  EXPECT_EQ(PrepareWarpgroups(), LaunchError::kOk) << "with them";
#endif
}

}  // namespace
}  // namespace beamline::kernels
