// SPDX-License-Identifier: Apache-2.0
#include "cli/client_output.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// A server that is older than a field does not say 0 in it.
TEST(ClientOutput, WhatAnOlderServerDoesNotTellIsLeftOut) {
  v1::RecommendResponse response;
  response.set_unknown_items(3);
  response.set_dropped_events(7);
  EXPECT_THAT(FormatRecommendations(response, {}),
              HasSubstr("\n3 events with unknown items, 7 others that the model does not look at\nms: "));
  response.set_seen_events(0);
  EXPECT_THAT(
      FormatRecommendations(response, {}),
      HasSubstr("\n3 events with unknown items, 7 others that the model does not look at, 0 that it does\nms: "));

  v1::GetStatusResponse status;
  EXPECT_THAT(FormatStatus(status), Not(HasSubstr("history")));
  status.set_short_term_events(20);
  status.set_positive_events(0);
  EXPECT_THAT(FormatStatus(status),
              HasSubstr("\nof a history it sees up to 20 events of any kind and 0 of positive feedback\nrequests: "));
}

}  // namespace
}  // namespace beamline::cli
