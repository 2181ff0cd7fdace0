// SPDX-License-Identifier: Apache-2.0
//
// The comparison itself must be able to fail.
#include "parity/list_comparison.h"

#include "gtest/gtest.h"

namespace beamline::parity {
namespace {

const ReferenceList kReference{{{{1, 1}, -1.0}, {{1, 2}, -2.0}, {{3, 0}, -2.00005}, {{2, 2}, -3.0}}, {}, 0.5};

Tally Compared(std::vector<Scored> actual, ReferenceList reference = kReference) {
  Tally tally;
  Compare(reference, actual, "here", tally);
  return tally;
}

TEST(ListComparison, EqualListsPass) {
  const Tally tally = Compared(kReference.entries);
  EXPECT_EQ(tally.failed + tally.reordered + tally.other_members, 0);
  EXPECT_EQ(tally.hypotheses, 4);
}

TEST(ListComparison, ScoresAreHeldToTheirTolerance) {
  std::vector<Scored> actual = kReference.entries;
  actual[3].score += 4e-5;
  EXPECT_EQ(Compared(actual).failed, 0);
  EXPECT_NEAR(Compared(actual).worst_score, 4e-5, 1e-9);
  actual[3].score += 2e-5;
  EXPECT_EQ(Compared(actual).failed, 1);
  actual[3].score = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(Compared(actual).failed, 1);
}

TEST(ListComparison, AListMayAgreeWithTheReferenceInDouble) {
  ReferenceList reference = kReference;
  reference.in_double = {-1.0001, -2.0001, -2.00015, -3.0001};
  std::vector<Scored> actual = kReference.entries;
  EXPECT_EQ(Compared(actual, reference).by_double, 0);
  for (Scored& entry : actual) entry.score -= 9e-5;
  EXPECT_EQ(Compared(actual).failed, 1);
  EXPECT_EQ(Compared(actual, reference).failed, 0);
  EXPECT_EQ(Compared(actual, reference).by_double, 1);
  EXPECT_NEAR(Compared(actual, reference).worst_score, 1e-5, 1e-9);
  std::swap(actual[1], actual[2]);
  reference.in_double = {-1.0001, -2.00012, -2.00011, -3.0001};
  EXPECT_EQ(Compared(actual, reference).by_double, 1) << "its order, too";
  EXPECT_EQ(Compared(actual, reference).reordered, 0);
  actual[0].score += 9e-5;  // with neither as a whole
  EXPECT_EQ(Compared(actual, reference).failed, 1);
}

TEST(ListComparison, OrderMayDifferAmongNearTiesAlone) {
  std::vector<Scored> actual = kReference.entries;
  std::swap(actual[1], actual[2]);
  EXPECT_EQ(Compared(actual).reordered, 1);
  EXPECT_EQ(Compared(actual).failed, 0);
  actual = kReference.entries;
  std::swap(actual[0], actual[1]);
  EXPECT_EQ(Compared(actual).failed, 1);
}

TEST(ListComparison, MembersMayDifferWhereTheReferenceCutBetweenNearTies) {
  std::vector<Scored> other = kReference.entries, shorter = kReference.entries, twice = kReference.entries;
  other[3].sid = {7, 7};
  shorter.pop_back();
  twice[3] = twice[2];
  for (const std::vector<Scored>& actual : {other, shorter, twice}) {
    EXPECT_EQ(Compared(actual).failed, 1);
    ReferenceList close = kReference;
    close.cut_gap = 5e-5;
    EXPECT_EQ(Compared(actual, close).failed, 0);
    EXPECT_EQ(Compared(actual, close).other_members, 1);
  }
}

}  // namespace
}  // namespace beamline::parity
