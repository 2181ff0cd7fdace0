// SPDX-License-Identifier: Apache-2.0
#include "engine/call.h"

#include <memory>

#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

class CallTest : public ::testing::Test {
 protected:
  // What the call says that was cancelled so long after it came, of 100 ms.
  absl::StatusCode Cancelled(absl::Duration after) {
    Call call;
    call.clock = clock_;
    call.received = clock_->Now();
    call.deadline = call.received + absl::Milliseconds(100);
    EXPECT_TRUE(call.StillWanted(call.received).ok());
    clock_->Advance(after);
    call.Cancel();
    clock_->Advance(absl::Milliseconds(200));
    call.Cancel();  // the first counts
    return call.StillWanted(clock_->Now()).code();
  }

  std::shared_ptr<FakeClock> clock_ = std::make_shared<FakeClock>();
};

TEST_F(CallTest, ACancelAtTheEndOfTheTimeIsItsEnd) {
  EXPECT_EQ(Cancelled(absl::Milliseconds(50)), absl::StatusCode::kCancelled);
  EXPECT_EQ(Cancelled(absl::Milliseconds(94)), absl::StatusCode::kCancelled);
  EXPECT_EQ(Cancelled(absl::Milliseconds(96)), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(Cancelled(absl::Milliseconds(110)), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(CallTest, TimeEndsByItself) {
  Call call;
  call.deadline = clock_->Now() + absl::Milliseconds(100);
  EXPECT_TRUE(call.StillWanted(call.deadline - absl::Milliseconds(1)).ok());
  EXPECT_EQ(call.StillWanted(call.deadline).code(), absl::StatusCode::kDeadlineExceeded);
  call.ended = true;
  EXPECT_EQ(call.StillWanted(call.deadline - absl::Milliseconds(1)).code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace beamline::engine
