// SPDX-License-Identifier: Apache-2.0
#include "backend/device_name.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/context.h"

namespace beamline::backend {
namespace {

using ::testing::HasSubstr;

TEST(DeviceName, NamesOneDevice) {
  EXPECT_EQ(*ParseDeviceName("cpu"), c10::Device(c10::kCPU));
  EXPECT_EQ(*ParseDeviceName("cuda"), c10::Device(c10::kCUDA));
  EXPECT_EQ(*ParseDeviceName("cuda:0"), c10::Device(c10::kCUDA, 0));
  EXPECT_EQ(*ParseDeviceName("cuda:7"), c10::Device(c10::kCUDA, 7));
  EXPECT_EQ(*ParseDeviceName("cuda:127"), c10::Device(c10::kCUDA, 127));
}

// Of 256 a c10::Device would make the first GPU.
TEST(DeviceName, OthersAreRefused) {
  for (const std::string name :
       {"", "CPU", "cpu:0", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:+1", "cuda: 1", "cuda:01", "cuda:1.5",
        "cuda:128", "cuda:256", "cuda:99999999999999999999", "mps", "meta"}) {
    EXPECT_EQ(ParseDeviceName(name).status(),
              absl::InvalidArgumentError("device: '" + name + "' is unknown; use cpu, cuda or cuda:N"));
    EXPECT_EQ(MakeContext(name, "fp32", "auto").status().code(), absl::StatusCode::kInvalidArgument) << name;
  }
}

TEST(DeviceName, ADeviceThatIsNotThereIsRefused) {
  const auto check = [](const std::string& name, int gpus) {
    return CheckDeviceIsThere(name, *ParseDeviceName(name), gpus);
  };
  EXPECT_TRUE(check("cpu", 0).ok());
  EXPECT_TRUE(check("cuda", 1).ok());
  EXPECT_TRUE(check("cuda:0", 1).ok());
  EXPECT_TRUE(check("cuda:7", 8).ok());
  EXPECT_EQ(check("cuda:8", 8),
            absl::InvalidArgumentError("device: 'cuda:8' asked for, but there are 8 CUDA devices, from cuda:0 on"));
  EXPECT_FALSE(check("cuda", 0).ok());
}

// On any machine of fewer than 128 GPUs, with a CUDA or without.
TEST(DeviceName, AContextOfADeviceThatIsNotThereIsRefused) {
  for (const char* backend : {"aten", "cuda", "auto"}) {
    EXPECT_THAT(std::string(MakeContext("cuda:127", "fp32", backend).status().message()),
                HasSubstr("device: 'cuda:127' asked for, but"));
  }
}

}  // namespace
}  // namespace beamline::backend
