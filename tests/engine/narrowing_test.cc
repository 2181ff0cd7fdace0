// SPDX-License-Identifier: Apache-2.0
#include "engine/narrowing.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::engine {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kNarrowMs = absl::Milliseconds(1);
const std::vector<NarrowingStep> kLadder = {{20 * kNarrowMs, 64}, {50 * kNarrowMs, 32}, {100 * kNarrowMs, 8}};

TEST(NarrowingTest, ALadderThatMakesNoSenseIsRefused) {
  EXPECT_TRUE(CheckNarrowing({}, 1).ok());
  EXPECT_TRUE(CheckNarrowing(kLadder, 64).ok());
  const std::pair<std::vector<NarrowingStep>, const char*> bad[] = {
      {{{-kNarrowMs, 8}}, "narrowing[0].wait_ms: -1 is outside 0..3600000"},
      {{{kNarrowMs, 0}}, "narrowing[0].beam_width: 0 is outside 1..128 (max_beam_width)"},
      {{{kNarrowMs, 129}}, "narrowing[0].beam_width: 129 is outside 1..128"},
      {{{kNarrowMs, 64}, {kNarrowMs, 32}}, "narrowing[1].wait_ms: 1 is not above that of the step before it (1)"},
      {{{kNarrowMs, 64}, {2 * kNarrowMs, 64}},
       "narrowing[1].beam_width: 64 is not below that of the step before it (64)"},
      {std::vector<NarrowingStep>(9, {kNarrowMs, 1}), "narrowing: has 9 steps, at most 8"},
  };
  for (const auto& [ladder, message] : bad) {
    const absl::Status status = CheckNarrowing(ladder, 128);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(NarrowingTest, WidthsShrinkToTheStepButNotBelowWhatIsNeeded) {
  EXPECT_THAT(NarrowedWidths({16, 100, 40}, kLadder, 0, 1), ElementsAre(16, 100, 40));
  EXPECT_THAT(NarrowedWidths({16, 100, 40}, kLadder, 2, 1), ElementsAre(16, 32, 32));
  EXPECT_THAT(NarrowedWidths({16, 100, 40}, kLadder, 3, 20), ElementsAre(16, 20, 20));
}

// A queue with `wait` ahead that takes up to `most` rows.
Narrowing Choose(std::vector<int> widths, absl::Duration wait, int most, int needed = 1) {
  return ChooseWidths(std::move(widths), kLadder, needed, [&](const std::vector<int>& asked) {
    return WidthForecast{*std::max_element(asked.begin(), asked.end()) <= most, wait};
  });
}

TEST(NarrowingTest, TheWaitChoosesTheStep) {
  const std::pair<absl::Duration, int> steps[] = {{absl::ZeroDuration(), 0}, {19 * kNarrowMs, 0}, {20 * kNarrowMs, 1},
                                                  {50 * kNarrowMs, 2},       {99 * kNarrowMs, 2}, {absl::Hours(1), 3}};
  for (const auto& [wait, step] : steps) EXPECT_EQ(Choose({128, 128}, wait, 1000).step, step) << wait;
  EXPECT_THAT(Choose({128, 128}, 50 * kNarrowMs, 1000).widths, ElementsAre(32, 32));
}

TEST(NarrowingTest, AStepFurtherIsTakenWhereOnlyThatIsAccepted) {
  EXPECT_EQ(Choose({128}, absl::ZeroDuration(), 40).step, 2);
  EXPECT_EQ(Choose({128}, 20 * kNarrowMs, 64).step, 1);
  const Narrowing hopeless = Choose({128}, absl::ZeroDuration(), 0);
  EXPECT_EQ(hopeless.step, 3) << "the scheduler refuses it";
}

TEST(NarrowingTest, WhoAskedForNoMoreIsNotNarrowed) {
  EXPECT_EQ(Choose({8}, absl::Hours(1), 1000).step, 0);
  EXPECT_EQ(Choose({40}, absl::Hours(1), 1000, /*needed=*/40).step, 0);
}

TEST(NarrowingTest, WithoutALadderNobodyIsAsked) {
  const Narrowing chosen = ChooseWidths({128}, {}, 1, [](const std::vector<int>&) {
    ADD_FAILURE() << "asked";
    return WidthForecast{};
  });
  EXPECT_THAT(chosen.widths, ElementsAre(128));
  EXPECT_EQ(chosen.step, 0);
}

}  // namespace
}  // namespace beamline::engine
