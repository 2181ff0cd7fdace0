// SPDX-License-Identifier: Apache-2.0
#include "train/time_split.h"

#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace beamline::train {
namespace {

using ::testing::HasSubstr;

TEST(TimeSplit, ReadsDaysTimesAndMilliseconds) {
  const TimeSplit expected{1651363200000, 1651428000500};
  for (const char* text : {"2022-05-01,2022-05-01T18:00:00.5Z", "1651363200000,1651428000500",
                           "2022-05-01T02:00:00+02:00,2022-05-01T14:00:00.500-04:00"}) {
    const absl::StatusOr<TimeSplit> split = ParseTimeSplit(text);
    ASSERT_TRUE(split.ok()) << text << ": " << split.status();
    EXPECT_EQ(*split, expected) << text;
  }
}

TEST(TimeSplit, ReadsWhatItWrites) {
  for (const TimeSplit& split :
       {TimeSplit{0, 1}, TimeSplit{-62135596800000, 253402214400000}, TimeSplit{1651363200007, 1651428000000}}) {
    const absl::StatusOr<TimeSplit> again = ParseTimeSplit(DescribeTimeSplit(split));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(*again, split);
  }
  EXPECT_EQ(DescribeTimeSplit({1651363200000, 1651428000500}), "2022-05-01T00:00:00Z,2022-05-01T18:00:00.5Z");
}

TEST(TimeSplit, RefusesWhatIsNoSplit) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "has 1 moment; give two"},
      {"2022-05-01", "has 1 moment; give two"},
      {"1,2,3", "has 3 moments; give two"},
      {"2022-05-01,", "'' is no day"},
      {"2022-05-32,2022-06-01", "'2022-05-32' is no day"},
      {"2022-05-01,2022-05-02T25:00:00Z", "'2022-05-02T25:00:00Z' is no day"},
      {"1e3,2e3", "'1e3' is no day"},
      {"-62135596800001,0", "'-62135596800001' is no day"},
      {"0,253402214400001", "to 9999-12-31"},
      {"infinite-past,infinite-future", "'infinite-past' is no day"},
      {"2022-05-02,2022-05-02", "2022-05-02T00:00:00Z,2022-05-02T00:00:00Z: the second must be later"},
      {"2,1", "the second must be later"},
  };
  for (const auto& [text, why] : cases) {
    const absl::Status status = ParseTimeSplit(text).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << text;
  }
}

}  // namespace
}  // namespace beamline::train
