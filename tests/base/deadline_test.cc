// SPDX-License-Identifier: Apache-2.0
#include "base/deadline.h"

#include "gtest/gtest.h"

namespace beamline {
namespace {

TEST(RanOutOfTime, TheLastTwentiethAndAtLeastFiveMilliseconds) {
  const absl::Time begun = absl::UnixEpoch();
  const auto ran_out = [&](int whole_ms, double cancelled_ms) {
    return RanOutOfTime(begun, begun + absl::Milliseconds(whole_ms), begun + absl::Milliseconds(cancelled_ms));
  };
  EXPECT_TRUE(ran_out(1000, 950));
  EXPECT_FALSE(ran_out(1000, 949));
  EXPECT_TRUE(ran_out(50, 45)) << "a twentieth would be 2.5 ms";
  EXPECT_FALSE(ran_out(50, 44.9));
  EXPECT_TRUE(ran_out(6, 3)) << "of what is shorter than 10 ms the second half";
  EXPECT_FALSE(ran_out(6, 2.9));
  EXPECT_TRUE(ran_out(50, 60));
  EXPECT_FALSE(RanOutOfTime(begun, absl::InfiniteFuture(), absl::InfiniteFuture()));
}

}  // namespace
}  // namespace beamline
