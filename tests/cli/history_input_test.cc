// SPDX-License-Identifier: Apache-2.0
#include "cli/history_input.h"

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>
#include <utility>
#include <vector>

#include "cli/newest_events.h"
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

// A log may be gigabytes of one user, in any order.
TEST(NewestEvents, HoldsNoMoreThanTwiceWhatIsWanted) {
  std::mt19937 random(7);
  for (const size_t wanted : {size_t{0}, size_t{1}, size_t{2}, size_t{7}, size_t{1000}, SIZE_MAX}) {
    for (const int times : {1, 3, 100000}) {
      NewestEvents newest(wanted);
      std::vector<Event> all;
      for (uint64_t item = 0; item < 500; ++item) {
        Event event;
        event.item = item;
        event.timestamp_ms = static_cast<int64_t>(random() % times);
        all.push_back(event);
        newest.Add(event);
        EXPECT_LE(newest.held() / 2, wanted);
      }
      std::stable_sort(all.begin(), all.end(),
                       [](const Event& a, const Event& b) { return a.timestamp_ms < b.timestamp_ms; });
      if (all.size() > wanted) all.erase(all.begin(), all.end() - static_cast<std::ptrdiff_t>(wanted));
      const std::vector<Event> taken = std::move(newest).Take();
      ASSERT_EQ(taken.size(), all.size()) << wanted;
      for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(taken[i].item, all[i].item) << wanted << " of " << times;
    }
  }
}

// What was read of a user before a trim counts after it.
TEST(HistoriesFromData, AreTheNewestOfEachUserHoweverLongTheLog) {
  const std::filesystem::path folder = std::filesystem::path(::testing::TempDir()) / "histories_from_data";
  std::filesystem::create_directories(folder);
  std::ofstream events(folder / "events.tsv");
  events << "user_id\titem_id\ttimestamp_ms\n";
  for (int i = 0; i < 50; ++i) events << "u\t" << i << "\t" << (i * 37) % 50 << "\nv\t" << i << "\t9\n";
  events << "late\t1\t1\n";
  events.close();
  const auto histories = ReadHistoriesFromData(folder.string(), 2, 3);
  ASSERT_TRUE(histories.ok()) << histories.status();
  ASSERT_EQ(histories->size(), 2u);
  std::vector<int64_t> times;
  for (const Event& event : (*histories)[0]) times.push_back(event.timestamp_ms);
  EXPECT_THAT(times, ElementsAre(47, 48, 49));
  std::vector<ItemId> items;
  for (const Event& event : (*histories)[1]) items.push_back(event.item);
  EXPECT_THAT(items, ElementsAre(47, 48, 49)) << "of one time, the last ones";
  const auto user = ReadUserFromData(folder.string(), "v", 2);
  ASSERT_TRUE(user.ok()) << user.status();
  ASSERT_EQ(user->history.size(), 2u);
  EXPECT_EQ(user->history[0].item, 48u);
  EXPECT_TRUE(ReadUserFromData(folder.string(), "v", 0).ok()) << "a user who is there, though nothing is wanted of her";
}

}  // namespace
}  // namespace beamline::cli
