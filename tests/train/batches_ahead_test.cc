// SPDX-License-Identifier: Apache-2.0
#include "train/batches_ahead.h"

#include <atomic>
#include <stdexcept>

#include "gtest/gtest.h"

namespace beamline::train {
namespace {

TEST(BatchesAheadTest, ComeInOrderAndNoMoreThanAsked) {
  for (const int threads : {0, 1, 3}) {
    std::atomic<int64_t> built{0};
    const auto build = [&](int64_t batch) {
      ++built;
      return ExampleBatch{.targets = batch};
    };
    {
      BatchesAhead batches(build, 5, 40, threads);
      for (int64_t batch = 5; batch < 30; ++batch) EXPECT_EQ(batches.Next().targets, batch);
    }
    EXPECT_GE(built, 25);
    EXPECT_LE(built, 25 + 2 * threads);
    BatchesAhead all(build, 0, 7, threads);
    for (int64_t batch = 0; batch < 7; ++batch) EXPECT_EQ(all.Next().targets, batch);
  }
}

TEST(BatchesAheadTest, ThrowWhatBuildingThrew) {
  for (const int threads : {0, 2}) {
    BatchesAhead batches(
        [](int64_t batch) -> ExampleBatch {
          if (batch == 1) throw std::runtime_error("no memory");
          return {};
        },
        0, 3, threads);
    batches.Next();
    EXPECT_THROW(batches.Next(), std::runtime_error);
  }
}

}  // namespace
}  // namespace beamline::train
