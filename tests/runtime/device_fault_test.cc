// SPDX-License-Identifier: Apache-2.0
//
// A device that fails under a batch, on the emulator: CUDA says so where the batch waits.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "runtime/cuda_runner.h"

namespace beamline::runtime {
namespace {

using ::testing::HasSubstr;

class DeviceFaultTest : public testing::CudaRunnerTest {
 protected:
  static void ExpectFault(const absl::Status& status, const std::string& operation) {
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(absl::StrCat("cuda: ", operation, ": ")));
    EXPECT_THAT(std::string(status.message()), HasSubstr("(cudaErrorIllegalAddress)"));
  }
};

TEST_F(DeviceFaultTest, AnEncodeThatFaultedFailsAndNothingOfItIsKept) {
  EXPECT_TRUE(Cached("a"));
  const auto job = MakeJob("new");
  emulator::device_error = cudaErrorIllegalAddress;
  const absl::Status fault = Encode(*job);
  ExpectFault(fault, "the end of a batch");
  EXPECT_EQ(job->context, nullptr);
  EXPECT_FALSE(Cached("new"));
  EXPECT_EQ(runner_->fault(), fault);

  emulator::device_error = cudaSuccess;  // later batches do not even ask
  EXPECT_EQ(Encode(*MakeJob("later")), fault);
  const auto cached = MakeJob("a");
  ASSERT_TRUE(runner_->TryAttachContext(*cached));
  const int waits = emulator::waits;
  EXPECT_EQ(Decode(*cached), fault);
  EXPECT_EQ(emulator::waits, waits);
}

TEST_F(DeviceFaultTest, ADecodeThatFaultedFailsAndIsTheLast) {
  const auto job = MakeJob("a");
  ASSERT_TRUE(Encode(*job).ok());
  emulator::device_error = cudaErrorIllegalAddress;
  const absl::Status fault = Decode(*job);
  ExpectFault(fault, "a batch");
  EXPECT_TRUE(job->hypotheses.empty());
  emulator::device_error = cudaSuccess;
  EXPECT_EQ(Decode(*job), fault);
  EXPECT_EQ(runner_->WarmUp({}, ScoreRule::kFull), fault) << "nor does a model load beside it";
}

TEST_F(DeviceFaultTest, AnotherErrorIsOfItsBatchAlone) {
  const auto job = MakeJob("new");
  emulator::device_error = cudaErrorUnknown;
  EXPECT_EQ(Encode(*job).code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(Cached("new"));
  emulator::device_error = cudaSuccess;
  EXPECT_TRUE(runner_->fault().ok());
  ASSERT_TRUE(Encode(*job).ok());
  emulator::device_error = cudaErrorUnknown;
  EXPECT_EQ(Decode(*job).code(), absl::StatusCode::kInternal);
  emulator::device_error = cudaSuccess;
  EXPECT_TRUE(Decode(*job).ok());
  EXPECT_TRUE(runner_->fault().ok());
  EXPECT_FALSE(job->hypotheses.empty());
}

// The result is that of the wait which every batch has.
TEST_F(DeviceFaultTest, AGoodEncodeWaitsOnce) {
  const auto job = MakeJob("new");
  const int before = emulator::waits;
  ASSERT_TRUE(Encode(*job).ok());
  EXPECT_EQ(emulator::waits, before + 1);
}

TEST_F(DeviceFaultTest, AnEncodeAndDecodeThatFaultedFailsAndNothingOfItIsKept) {
  const auto job = MakeJob("new"), at_hand = MakeJob("a");
  ASSERT_TRUE(runner_->TryAttachContext(*at_hand));
  scheduler::Job* const jobs[] = {job.get(), at_hand.get()};
  const auto live = [](const scheduler::Job&) { return absl::OkStatus(); };
  emulator::device_error = cudaErrorUnknown;  // of the batch alone
  for (const absl::Status& status : runner_->EncodeAndDecode(jobs, live).statuses) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  }
  EXPECT_EQ(job->context, nullptr);
  EXPECT_FALSE(Cached("new"));
  EXPECT_TRUE(Cached("a"));
  emulator::device_error = cudaErrorIllegalAddress;
  const std::vector<absl::Status> faults = runner_->EncodeAndDecode(jobs, live).statuses;
  for (const absl::Status& fault : faults) ExpectFault(fault, "a batch");
  EXPECT_EQ(job->context, nullptr);
  EXPECT_EQ(runner_->fault(), faults[0]);
}

}  // namespace
}  // namespace beamline::runtime
