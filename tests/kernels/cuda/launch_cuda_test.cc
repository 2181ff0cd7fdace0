// SPDX-License-Identifier: Apache-2.0
//
// What a launcher says of its launch is that launch's own result.
#include <cstddef>
#include <vector>

#include "beamline/kernels/elementwise_cuda.h"
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

}  // namespace
}  // namespace beamline::kernels
