// SPDX-License-Identifier: Apache-2.0
#include "data/sequence_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/labels.h"
#include "test_files.h"

namespace beamline::data {
namespace {

using ::testing::ElementsAre;
using Layout = SequenceFileReader::Layout;

class SequenceFileTest : public FolderTest {
 protected:
  // "user: item@time(labels) ..." per user, or the error.
  std::vector<std::string> Read(const std::string& text, Layout* layout = nullptr, double max_bad = 0.01) {
    SequenceFileReader::Options options;
    options.sequence_labels = kLongView;
    options.bad_rows.max_fraction = max_bad;
    absl::StatusOr<SequenceFileReader> reader = SequenceFileReader::Open(WriteText("s", text), options);
    if (!reader.ok()) return {std::string(reader.status().message())};
    if (layout != nullptr) *layout = reader->layout();
    std::vector<std::string> users;
    UserSequence user;
    while (true) {
      const absl::StatusOr<bool> more = reader->Next(&user);
      if (!more.ok()) return {std::string(more.status().message())};
      if (!*more) return users;
      users.push_back(user.user_id + ":");
      for (const Event& event : user.events) {
        absl::StrAppend(&users.back(), " ", event.item, "@", (event.timestamp_ms - kSyntheticEndMs) / kSyntheticStepMs,
                        "(", FormatLabels(event.labels), ")");
      }
    }
  }
};

TEST_F(SequenceFileTest, TabbedAndSpaced) {
  Layout layout;
  EXPECT_THAT(Read("7\t30 10\n8\t20\n", &layout),
              ElementsAre("7: 30@-1(long_view) 10@0(long_view)", "8: 20@0(long_view)"));
  EXPECT_EQ(layout, Layout::kTabbed);
  EXPECT_THAT(Read("7 30 10\n8 20", &layout), ElementsAre("7: 30@-1(long_view) 10@0(long_view)", "8: 20@0(long_view)"));
  EXPECT_EQ(layout, Layout::kSpaced);
}

TEST_F(SequenceFileTest, HeldOutKeepsKnownTimes) {
  Layout layout;
  const std::string time = absl::StrCat(kSyntheticEndMs + 5 * kSyntheticStepMs);
  EXPECT_THAT(
      Read("user_id\ttrain_tail\tval\ttest\nu\t1 2\t3:" + time + "\t4:" + time + "\nv\t5\t\t\nw\t\t\t\n", &layout),
      ElementsAre("u: 1@3(long_view) 2@4(long_view) 3@5(long_view) 4@5(long_view)", "v: 5@0(long_view)", "w:"));
  EXPECT_EQ(layout, Layout::kHeldOut);
}

TEST_F(SequenceFileTest, TailsAreLaidOntoTheWatchSequence) {
  Layout layout;
  const std::string header = "user_id\tlast_time_ms\twatch_seq\tlike_seq\tlong_watch_seq\n";
  const std::string time = absl::StrCat(kSyntheticEndMs);
  EXPECT_THAT(
      Read(header + "u\t" + time + "\t1 2 1 3\t1\t9 1 3\n", &layout),
      ElementsAre("u: 9@-4(click|long_view) 1@-3(click) 2@-2(click) 1@-1(click|like|long_view) 3@0(click|long_view)"));
  EXPECT_EQ(layout, Layout::kTails);
  EXPECT_THAT(Read(header + "u\t\t1\t\t\n"), ElementsAre("u: 1@0(click)"));
}

TEST_F(SequenceFileTest, BadLines) {
  for (const char* bad : {"9 1 -2", "9 1 x", "9 1  2", "9 1.5", "9 18446744073709551616"}) {
    const std::string text = absl::StrCat("7 30 10\n", bad, "\n8 1\n");
    EXPECT_THAT(Read(text)[0], ::testing::HasSubstr("line 2: ")) << bad;
    EXPECT_EQ(Read(text, nullptr, 0.5).size(), 2u) << bad;
  }
  const std::string held_out = "user_id\ttrain_tail\tval\ttest\n";
  EXPECT_THAT(Read(held_out + "u\t1\t2\t\n")[0], ::testing::HasSubstr("'2' is not item:time_ms"));
  EXPECT_THAT(Read(held_out + "u\t1\t2:-5\t\n")[0], ::testing::HasSubstr("time_ms '-5'"));
  EXPECT_THAT(Read(held_out + "u\t1\t2:5\n")[0], ::testing::HasSubstr("3 fields where 4 are expected"));
  EXPECT_THAT(Read("7\t1 2\n8\t1\t2\n")[0], ::testing::HasSubstr("3 fields where 2 are expected"));
}

// Two lines of one user have no order between them.
TEST_F(SequenceFileTest, AUserHasOneLine) {
  EXPECT_THAT(Read("7 30 10\n8 1\n7 2\n")[0], ::testing::HasSubstr("line 3: user '7' appears a second time"));
  EXPECT_EQ(Read("7 30 10\n8 1\n7 2\n", nullptr, 0.5).size(), 2u);
}

TEST_F(SequenceFileTest, UnknownLayoutsAreRefused) {
  for (const char* bad :
       {"", "\n", "user\n", "user_id,item_id\n1,2\n", "user_id\titem_id\ttimestamp_ms\n", "{\"a\": 1}\n"}) {
    ASSERT_EQ(Read(bad).size(), 1u) << bad;
    EXPECT_THAT(Read(bad)[0], ::testing::AnyOf(::testing::HasSubstr("is not the start of a sequence file"),
                                               ::testing::HasSubstr("empty")))
        << bad;
  }
}

}  // namespace
}  // namespace beamline::data
