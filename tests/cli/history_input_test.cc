// SPDX-License-Identifier: Apache-2.0
#include "cli/history_input.h"

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace beamline::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

absl::StatusOr<std::vector<Event>> Read(const std::string& text) {
  std::istringstream lines(text);
  return ReadHistoryLines(lines, "h.txt");
}

TEST(HistoryLines, TakeOneToFourFields) {
  const auto history = Read("42 1650000000000 9500 click|long_view\n\n# comment\n43\t1650000000001\r\n  44  # seen\n");
  ASSERT_TRUE(history.ok()) << history.status();
  ASSERT_EQ(history->size(), 3u);
  EXPECT_EQ((*history)[0].item, 42u);
  EXPECT_EQ((*history)[0].timestamp_ms, 1650000000000);
  EXPECT_EQ((*history)[0].play_time_ms, 9500);
  EXPECT_EQ((*history)[0].labels, uint32_t{kClick | kLongView});
  EXPECT_EQ((*history)[1].timestamp_ms, 1650000000001);
  EXPECT_EQ((*history)[2].item, 44u);
  EXPECT_EQ((*history)[2].labels, 0u);
}

TEST(HistoryLines, ErrorsNameFileAndLine) {
  for (const char* bad : {"x", "-1", "1.5", "99999999999999999999", "1 x", "1 -5", "1 2 3 nolabel", "1 2 3 click 5"}) {
    const auto history = Read(std::string("7\n") + bad + "\n");
    ASSERT_FALSE(history.ok()) << bad;
    EXPECT_EQ(history.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(history.status().message()), StartsWith("h.txt:2: ")) << bad;
  }
}

TEST(ItemList, IsStrict) {
  EXPECT_THAT(*ParseItemList("3,1,2", "--deny"), ElementsAre(3, 1, 2));
  EXPECT_TRUE(ParseItemList("", "--deny")->empty());
  EXPECT_THAT(std::string(ParseItemList("3,x", "--deny").status().message()), StartsWith("--deny: "));
  EXPECT_FALSE(ParseItemList("3, 4", "--deny").ok());
}

TEST(UserFromData, TakesTheNewestInTimeOrderWithAttributes) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "user_from_data";
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "events.tsv") << "user_id\titem_id\ttimestamp_ms\n"
                                          "u\t3\t300\nv\t9\t50\nu\t1\t100\nu\t2\t200\n";
  std::ofstream(folder / "users.tsv") << "user_id\tdegree\nv\tlow\nu\tfull\n";
  const auto input = ReadUserFromData(folder.string(), "u", 2);
  ASSERT_TRUE(input.ok()) << input.status();
  ASSERT_EQ(input->history.size(), 2u);
  EXPECT_EQ(input->history[0].item, 2u);
  EXPECT_EQ(input->history[1].item, 3u);
  ASSERT_EQ(input->attributes.size(), 1u);
  EXPECT_EQ(input->attributes[0].value, "full");
  EXPECT_THAT(std::string(ReadUserFromData(folder.string(), "w", 2).status().message()),
              HasSubstr("has no events of user w"));
}

}  // namespace
}  // namespace beamline::cli
