// SPDX-License-Identifier: Apache-2.0
//
// The three tables: what is read, what is refused, and that what is written reads back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/interrupt.h"
#include "data/event_table.h"
#include "data/item_table.h"
#include "data/user_table.h"
#include "test_files.h"

namespace beamline::data {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

class TablesTest : public FolderTest {
 protected:
  // One line per good event, or the error.
  std::vector<std::string> ReadEvents(const std::filesystem::path& path, const BadRowPolicy& policy = {}) {
    absl::StatusOr<EventTableReader> reader = EventTableReader::Open(path, policy);
    if (!reader.ok()) return {std::string(reader.status().message())};
    std::vector<std::string> events;
    EventRow row;
    while (true) {
      const absl::StatusOr<bool> more = reader->Next(&row);
      if (!more.ok()) return {std::string(more.status().message())};
      if (!*more) return events;
      events.push_back(absl::StrCat(std::string(row.user_id), " ", row.event.item, " ", row.event.timestamp_ms, " ",
                                    row.event.play_time_ms, " ", row.event.duration_ms, " ", row.event.labels));
    }
  }
};

TEST_F(TablesTest, EventColumnsComeInAnyOrderAndAreOptional) {
  EXPECT_THAT(ReadEvents(WriteText("a",
                                   "labels\textra\titem_id\ttimestamp_ms\tuser_id\n"
                                   "click|like\tx\t7\t1650000000000\tann\n\n"
                                   "\t\t18446744073709551615\t0\tb\n")),
              ElementsAre("ann 7 1650000000000 0 0 3", "b 18446744073709551615 0 0 0 0"));
  EXPECT_THAT(ReadEvents(WriteText("b",
                                   "user_id\titem_id\ttimestamp_ms\tplay_time_ms\tduration_ms\r\n"
                                   "u\t1\t2\t\t4\r\n")),
              ElementsAre("u 1 2 0 4 0"));
  EXPECT_THAT(ReadEvents(WriteText("c", "user_id\titem_id\ttimestamp_ms\n")), ElementsAre());
}

TEST_F(TablesTest, BadHeaders) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "empty; a header line is needed"},
      {"user_id\titem_id\n", "lacks timestamp_ms"},
      {"user_id,item_id,timestamp_ms\n", "lacks user_id, item_id, timestamp_ms"},
      {"1\t2\t3\n", "lacks user_id"},
      {"user_id\titem_id\ttimestamp_ms\titem_id\n", "'item_id' appears twice"},
      {"\xFF\xFEu\0s\0", "not a text table"},
      {"PK\x03\x04 rest", "not a text table"},
  };
  for (const auto& [text, error] : cases) {
    const std::vector<std::string> read = ReadEvents(WriteText("t", text));
    ASSERT_EQ(read.size(), 1u) << error;
    EXPECT_THAT(read[0], ::testing::HasSubstr(error));
    EXPECT_THAT(read[0], ::testing::HasSubstr(Path("t").string()));
  }
}

TEST_F(TablesTest, BadEventRowsAreCountedWithLineAndReason) {
  const std::pair<const char*, const char*> cases[] = {
      {"\t1\t2\t3\t4\t", "user_id is empty"},
      {"u\t-1\t2\t3\t4\t", "item_id '-1'"},
      {"u\t18446744073709551616\t2\t3\t4\t", "item_id '18446744073709551616'"},
      {"u\tx\t2\t3\t4\t", "item_id 'x'"},
      {"u\t1\t\t3\t4\t", "timestamp_ms ''"},
      {"u\t1\t-2\t3\t4\t", "timestamp_ms '-2'"},
      {"u\t1\t9223372036854775807\t3\t4\t", "timestamp_ms '9223372036854775807'"},
      {"u\t1\t2\t-3\t4\t", "play_time_ms '-3'"},
      {"u\t1\t2\t3.5\t4\t", "play_time_ms '3.5'"},
      {"u\t1\t2\tnan\t4\t", "play_time_ms 'nan'"},
      {"u\t1\t2\t3\t4294967296\t", "duration_ms '4294967296'"},
      {"u\t1\t2\t3\t4\tliked", "unknown label 'liked'"},
      {"u\t1\t2\t3\t4", "5 fields where the header has 6"},
      {"u\t1\t2\t3\t4\t\t", "7 fields where the header has 6"},
      {"\xC3\x28\t1\t2\t3\t4\t", "user_id '\\xc3(' is not UTF-8"},
  };
  const std::string header = "user_id\titem_id\ttimestamp_ms\tplay_time_ms\tduration_ms\tlabels\n";
  for (const auto& [row, reason] : cases) {
    const auto path = WriteText("t", absl::StrCat(header, "u\t1\t2\t3\t4\t\n", row, "\nu\t5\t2\t3\t4\t\n"));
    const std::vector<std::string> refused = ReadEvents(path);
    ASSERT_EQ(refused.size(), 1u) << row;
    EXPECT_THAT(refused[0], ::testing::HasSubstr(absl::StrCat("1 bad rows of 3 (limit 1%): line 3: ", reason)));
    EXPECT_THAT(ReadEvents(path, {.max_fraction = 0.4}), ElementsAre("u 1 2 3 4 0", "u 5 2 3 4 0")) << row;
  }
}

TEST_F(TablesTest, OverlongLinesAreBadRows) {
  const std::string header = "user_id\titem_id\ttimestamp_ms\n";
  const auto path = WriteText("t", absl::StrCat(header, std::string(2 << 20, 'u'), "\t1\t2\nu\t1\t2\n"));
  EXPECT_THAT(ReadEvents(path)[0], ::testing::HasSubstr("line 2: longer than 1048576 bytes"));
  EXPECT_THAT(ReadEvents(path, {.max_fraction = 0.5}), ElementsAre("u 1 2 0 0 0"));
}

TEST_F(TablesTest, ReadingStopsWhenInterrupted) {
  const auto path = WriteText("t", "user_id\titem_id\ttimestamp_ms\nu\t1\t2\n");
  SetInterrupted(true);
  EXPECT_THAT(ReadEvents(path), ElementsAre("interrupted"));
  SetInterrupted(false);
}

TEST_F(TablesTest, EventsReadBackPlainAndGzip) {
  for (const char* name : {"e.tsv", "e.tsv.gz"}) {
    EventTableWriter writer = EventTableWriter::Create(Path(name)).value();
    for (uint64_t row = 0; row < 20000; ++row) {
      Event event{row * row, static_cast<int64_t>(row), 5, 6, static_cast<uint32_t>(row % 256)};
      ASSERT_TRUE(writer.Write("user", event).ok());
    }
    EXPECT_FALSE(writer.Write("tab\tin it", {}).ok());
    EXPECT_FALSE(writer.Write("", {}).ok());
    EXPECT_EQ(writer.rows(), 20000);
    EXPECT_FALSE(std::filesystem::exists(Path(name)));
    ASSERT_TRUE(writer.Commit().ok());
    const std::vector<std::string> events = ReadEvents(Path(name));
    ASSERT_EQ(events.size(), 20000u);
    EXPECT_EQ(events[300], "user 90000 300 5 6 44");
  }
  EXPECT_LT(std::filesystem::file_size(Path("e.tsv.gz")), std::filesystem::file_size(Path("e.tsv")) / 2);
}

TEST_F(TablesTest, ItemsReadBack) {
  ItemRow row;
  row.item = 7;
  row.attributes = {18446744073709551615ull,        1234, 1650000000000, -2.5f, "caf\xC3\xA9 = \"x\"; y",
                    {{"tag", "39"}, {"tag", "a=b"}}};
  ItemTableWriter writer = ItemTableWriter::Create(Path("i")).value();
  ASSERT_TRUE(writer.Write(row).ok());
  ASSERT_TRUE(writer.Commit().ok());
  ItemTableReader reader = ItemTableReader::Open(Path("i")).value();
  ItemRow read;
  ASSERT_TRUE(reader.Next(&read).value());
  EXPECT_EQ(read.item, 7u);
  EXPECT_EQ(read.attributes.author, row.attributes.author);
  EXPECT_EQ(read.attributes.duration_ms, 1234);
  EXPECT_EQ(read.attributes.created_ms, 1650000000000);
  EXPECT_EQ(read.attributes.relevance, -2.5f);
  EXPECT_EQ(read.attributes.title, row.attributes.title);
  EXPECT_EQ(read.attributes.tags, row.attributes.tags);
  EXPECT_FALSE(reader.Next(&read).value());
}

TEST_F(TablesTest, BadItemRows) {
  const std::string long_title(5000, 't');
  const std::pair<std::string, std::string> cases[] = {
      {"1\t\t\t\t\t\t", "item_id 1 appears a second time"},
      {"\t\t\t\t\t\t", "item_id ''"},
      {"2\t-1\t\t\t\t\t", "author_id '-1'"},
      {"2\t\t-5\t\t\t\t", "duration_ms '-5'"},
      {"2\t\t\t9e9\t\t\t", "created_ms '9e9'"},
      {"2\t\t\t\tinf\t\t", "relevance 'inf'"},
      {"2\t\t\t\t1e31\t\t", "relevance '1e31'"},
      {"2\t\t\t\t\tplain\t", "tag 'plain' is not key=value"},
      {"2\t\t\t\t\ta=b;;c=d\t", "tag '' is not key=value"},
      {"2\t\t\t\t\t=b\t", "tag ''='b'"},
      {"2\t\t\t\t\tk=" + std::string(kMaxValueBytes + 1, 'v') + "\t", "tag 'k'="},
      {"2\t\t\t\t\t\t" + long_title, "title has 5000 bytes"},
      {"2\t\t\t\t\t\t\xFF", "title '\\xff' is not UTF-8"},
  };
  for (const auto& [text, reason] : cases) {
    const auto path =
        WriteText("t", absl::StrCat("item_id\tauthor_id\tduration_ms\tcreated_ms\trelevance\ttags\ttitle\n",
                                    "1\t\t\t\t\t\t\n", text, "\n"));
    ItemTableReader reader = ItemTableReader::Open(path).value();
    ItemRow row;
    ASSERT_TRUE(reader.Next(&row).value());
    EXPECT_PRED_FORMAT2(IsError, reader.Next(&row).status(), absl::StrCat("line 3: ", reason));
  }
}

TEST_F(TablesTest, TagsHaveLimits) {
  // The limits of catalogues and requests: what a table may hold can be asked for.
  KeyValues many(kMaxTagsPerItem + 1, {std::string(kMaxNameBytes, 'k'), std::string(kMaxValueBytes, 'v')});
  EXPECT_FALSE(FormatTags(many).ok());
  many.pop_back();
  EXPECT_EQ(ParseTags(FormatTags(many).value()).value(), many);
  EXPECT_FALSE(ParseTags(FormatTags(many).value() + ";k=v").ok());
  EXPECT_THAT(ParseTags("a=b=c;d=").value(), ElementsAre(Pair("a", "b=c"), Pair("d", "")));
  EXPECT_FALSE(FormatTags({{"a;b", "c"}}).ok());
  EXPECT_FALSE(FormatTags({{std::string(kMaxNameBytes + 1, 'k'), "v"}}).ok());
  EXPECT_FALSE(FormatTags({{"k", std::string(kMaxValueBytes + 1, 'v')}}).ok());
  EXPECT_FALSE(FormatTags({{"a", "b;c"}}).ok());
  EXPECT_FALSE(FormatTags({{"a", "b\n"}}).ok());
}

TEST_F(TablesTest, UsersReadBackWithoutEmptyValues) {
  UserTableWriter writer = UserTableWriter::Create(Path("u"), {"age", "city"}).value();
  ASSERT_TRUE(writer.Write("ann", {"30", ""}).ok());
  EXPECT_FALSE(writer.Write("bob", {"30"}).ok());
  ASSERT_TRUE(writer.Commit().ok());
  UserTableReader reader = UserTableReader::Open(Path("u")).value();
  UserRow row;
  ASSERT_TRUE(reader.Next(&row).value());
  EXPECT_EQ(row.user_id, "ann");
  ASSERT_EQ(row.attributes.size(), 1u);
  EXPECT_EQ(row.attributes[0].name, "age");
  EXPECT_EQ(row.attributes[0].value, "30");
  EXPECT_FALSE(reader.Next(&row).value());

  EXPECT_PRED_FORMAT2(IsError, UserTableReader::Open(WriteText("w", "user_id\t\ta\nx\t0\t1\n")).status(),
                      ":1: a column has no name");
  for (const std::string name : {"city\xFF", "\x1B[31mcity",
                                 "\xC2\x9B"
                                 "31mcity"}) {
    const std::string header = absl::StrCat("user_id\tage\t", name, "\nx\t0\t1\n");
    EXPECT_PRED_FORMAT2(IsError, UserTableReader::Open(WriteText("y", header)).status(),
                        "is not UTF-8 without control characters")
        << name;
  }
  UserTableReader twice = UserTableReader::Open(WriteText("v", "user_id\ta\nx\t1\nx\t2\n")).value();
  ASSERT_TRUE(twice.Next(&row).value());
  EXPECT_PRED_FORMAT2(IsError, twice.Next(&row).status(), "user_id 'x' appears a second time");
  std::string header = "user_id";
  for (int column = 0; column < 65; ++column) absl::StrAppend(&header, "\tc", column);
  EXPECT_PRED_FORMAT2(IsError, UserTableReader::Open(WriteText("w", header)).status(), "65 attribute columns");
  const std::string wide = absl::StrCat("user_id\t", std::string(kMaxNameBytes + 1, 'c'));
  EXPECT_PRED_FORMAT2(IsError, UserTableReader::Open(WriteText("x", wide)).status(), "129 bytes");
}

}  // namespace
}  // namespace beamline::data
