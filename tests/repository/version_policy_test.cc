// SPDX-License-Identifier: Apache-2.0
#include "repository/version_policy.h"

#include <cerrno>
#include <vector>

#include "gtest/gtest.h"

namespace beamline::repository {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1000);
const std::vector<FolderVersion> kThree = {{1, "1", "a"}, {5, "5", "b"}, {7, "7", "c"}};

int64_t Next(int64_t floor, const Refusals& refusals = {}, absl::Time now = kNow) {
  const FolderVersion* next = NextVersion(kThree, floor, refusals, now);
  return next == nullptr ? 0 : next->number;
}

TEST(VersionPolicyTest, TakesTheNewestAboveTheFloor) {
  EXPECT_EQ(Next(0), 7);
  EXPECT_EQ(Next(6), 7);
  EXPECT_EQ(Next(7), 0);
  EXPECT_EQ(Next(100), 0);
  EXPECT_EQ(NextVersion({}, 0, {}, kNow), nullptr);
}

TEST(VersionPolicyTest, PassesOverWhatWasRefusedUntilItChanges) {
  EXPECT_EQ(Next(0, {{7, {"c"}}}), 5);
  EXPECT_EQ(Next(5, {{7, {"c"}}}), 0);
  EXPECT_EQ(Next(5, {{7, {"other files"}}}), 7);
  EXPECT_EQ(Next(0, {{7, {"c"}}, {5, {"b"}}, {1, {"a"}}}), 0);
}

TEST(VersionPolicyTest, TriesAgainWhatFailedForTheMachine) {
  const absl::Time again = RetryAt(absl::UnavailableError("disk"), kNow, absl::Seconds(30));
  EXPECT_EQ(again, kNow + absl::Seconds(30));
  for (const absl::Status& trouble :
       {absl::ResourceExhaustedError("memory"), absl::ErrnoToStatus(EACCES, "rights"), absl::ErrnoToStatus(EIO, "disk"),
        absl::ErrnoToStatus(ESTALE, "a network's disk"), absl::NotFoundError("away")}) {
    EXPECT_EQ(RetryAt(trouble, kNow, absl::Seconds(30)), again) << trouble;
  }
  for (const absl::Status& fault : {absl::DataLossError("x"), absl::InvalidArgumentError("x"),
                                    absl::FailedPreconditionError("x"), absl::InternalError("x")}) {
    EXPECT_EQ(RetryAt(fault, kNow, absl::Seconds(30)), absl::InfiniteFuture());
  }
  EXPECT_EQ(Next(5, {{7, {"c", again}}}, again - absl::Nanoseconds(1)), 0);
  EXPECT_EQ(Next(5, {{7, {"c", again}}}, again), 7);
}

}  // namespace
}  // namespace beamline::repository
