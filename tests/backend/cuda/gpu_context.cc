// SPDX-License-Identifier: Apache-2.0
//
// The cuda backend on the machine's GPU. Where there is none, every test of the binary is skipped, unless the machine
// is meant to have one.
#include <cstdlib>

#include "backend/test_context.h"
#include "gtest/gtest.h"

namespace beamline::backend {
namespace {

class NeedsGpu : public testing::Environment {
 public:
  void SetUp() override {
    const absl::Status status = MakeContext("cuda", "fp32", "cuda").status();
    if (status.ok()) return;
    if (std::getenv("BEAMLINE_REQUIRE_GPU") != nullptr) FAIL() << status;
    GTEST_SKIP() << status;
  }
};

const testing::Environment* const kNeedsGpu = testing::AddGlobalTestEnvironment(new NeedsGpu);

}  // namespace

absl::StatusOr<Context> MakeCudaTestContext(absl::string_view dtype) { return MakeContext("cuda", dtype, "cuda"); }

}  // namespace beamline::backend
