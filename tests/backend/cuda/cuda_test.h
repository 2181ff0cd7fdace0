// SPDX-License-Identifier: Apache-2.0
//
// What tests of the cuda backend share. They skip where there is no device, unless BEAMLINE_REQUIRE_GPU is set.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <vector>

#include "absl/status/status.h"
#include "backend/ops.h"
#include "backend/test_context.h"
#include "gtest/gtest.h"

namespace beamline::backend::cuda {

inline Context SharedContext(const char* dtype = "fp32") { return *MakeCudaTestContext(dtype); }

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    const absl::Status status = MakeCudaTestContext("fp32").status();
    if (!status.ok() && std::getenv("BEAMLINE_REQUIRE_GPU") == nullptr) GTEST_SKIP() << status;
    ASSERT_TRUE(status.ok()) << status;
  }
};

inline Tensor Weight(Context& ctx, int64_t rows, int64_t columns, float first = 0.01f) {
  std::vector<float> values(rows * columns);
  for (size_t i = 0; i < values.size(); ++i) values[i] = first + 0.001f * static_cast<float>(i * 7919 % 613);
  return UploadWeight(ctx, values, {rows, columns});
}

}  // namespace beamline::backend::cuda
