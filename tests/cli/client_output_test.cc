// SPDX-License-Identifier: Apache-2.0
#include "cli/client_output.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::cli {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// U+009B begins a terminal's commands as ESC [ does.
TEST(ClientOutput, TitlesReachTheTerminalWithoutControlCharacters) {
  v1::RecommendResponse response;
  response.add_items()->set_item_id(7);
  ItemsById items;
  items[7].set_title(
      "\x1b[31m\xc2\x9b"
      "2Jr\xc3\xb6t");
  EXPECT_THAT(FormatRecommendations(response, items), HasSubstr("?[31m?2Jr\xc3\xb6t\n"));
}

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
