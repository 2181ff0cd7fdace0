// SPDX-License-Identifier: Apache-2.0
#include "loadgen/capacity.h"

#include <vector>

#include "gtest/gtest.h"

namespace beamline::loadgen {
namespace {

TEST(CapacityTest, FindsTheLimitFromAnySide) {
  for (const double limit : {0.3, 7.0, 550.0, 12'345.0}) {
    for (const double start : {0.01, 10.0, 1e5}) {
      std::vector<double> tried;
      const auto found = FindCapacity({.start = start, .precision = 0.03, .max_trials = 60}, [&](double rate) {
        tried.push_back(rate);
        return absl::StatusOr<bool>(rate <= limit);
      });
      ASSERT_TRUE(found.ok()) << found.status();
      EXPECT_LE(*found, limit);
      EXPECT_GE(*found, 0.97 * limit);
      EXPECT_EQ(tried.back(), *found) << "confirmed by the last trial";
    }
  }
}

// A lucky trial above the limit is not believed.
TEST(CapacityTest, WhatIsNotConfirmedIsLowered) {
  int trials = 0;
  const auto found = FindCapacity(
      {.start = 120}, [&](double rate) { return absl::StatusOr<bool>(rate <= (++trials == 1 ? 130 : 100)); });
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_LE(*found, 100);
  EXPECT_GE(*found, 100 * 0.95 * 0.95);
}

TEST(CapacityTest, GivesUpWhereNothingIsCarriedAndPassesErrorsOn) {
  const auto never = FindCapacity({.start = 10, .max_trials = 12}, [](double) { return absl::StatusOr<bool>(false); });
  EXPECT_EQ(never.status().code(), absl::StatusCode::kFailedPrecondition);
  const auto error = FindCapacity({}, [](double) { return absl::StatusOr<bool>(absl::CancelledError("stop")); });
  EXPECT_EQ(error.status(), absl::CancelledError("stop"));
}

}  // namespace
}  // namespace beamline::loadgen
